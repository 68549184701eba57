// Attention backward on a CPU: the scores of each tile are computed again from the log-sum-exp. After Dao et
// al.: "FlashAttention" (2022), with the sums in a fixed order.
#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class T>
struct BackwardTile {
  alignas(64) T queries[max_head_size * tile];     // (D, tile)
  alignas(64) T dout[max_head_size * tile];        // (D, tile)
  alignas(64) T query_rows[tile * max_head_size];  // (tile, padded D)
  alignas(64) T dout_rows[tile * max_head_size];   // (tile, padded D)
  alignas(64) T dqueries[max_head_size * tile];    // (D, tile)
  alignas(64) T dkeys[tile * max_head_size];       // (keys, padded D), of some keys and one tile of queries
  alignas(64) T probabilities[tile * tile];        // (keys, tile)
  alignas(64) T dscores[tile * tile];              // (keys, tile)
  alignas(64) T lse[tile];
  alignas(64) T delta[tile];
};

/// to: (tile, padded D) = the rows of the tile's queries, the rest zeros.
template <class T>
void copy_rows(const QueryTile& queries, Head<const T> rows, int64_t D, T* to) {
  const int64_t width = padded(D);
  std::fill_n(to, tile * width, T{0});
  for (int64_t i = 0; i < queries.count; ++i) std::copy_n(rows.row(i), D, to + i * width);
}

/// The head's rows of keys += weights (keys, tile) times rows (tile, padded D), of the queries that may see
/// them. product: scratch.
template <class T>
void accumulate_keys(const QueryTile& queries, const T* weights, const T* rows, int64_t key, int64_t keys,
                     int64_t D, T* product, Head<T> to) {
  constexpr int64_t block = 2 * lanes<T>;
  const int64_t width = padded(D);
  for (int64_t s = 0; s < keys; s += block) {
    // Queries before the first key of the block do not see any of it.
    const int64_t count = std::min(block, keys - s),
                  begin = std::clamp<int64_t>(key + s - queries.first, 0, tile);
    small_gemm<Write::overwrite, T>(count, width, tile - begin, {weights + s * tile + begin, tile, 1},
                                    rows + begin * width, width, product, width);
    for (int64_t r = 0; r < count; ++r) {
      T* row = to.row(key + s + r);
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) row[d] += product[r * width + d];
    }
  }
}

/// probabilities: raw scores in, exp(scale * score - lse) out.   dscores: gradients of the probabilities in,
/// of the raw scores out.
template <class T>
void softmax_backward(BackwardTile<T>& x, int64_t keys, T scale) {
  for (int64_t s = 0; s < keys; ++s) {
    T* p = x.probabilities + s * tile;
    T* ds = x.dscores + s * tile;
#pragma omp simd
    for (int64_t i = 0; i < tile; ++i) {
      p[i] = vector_exp(p[i] * scale - x.lse[i]);
      ds[i] = p[i] * (ds[i] - x.delta[i]) * scale;
    }
  }
}

/// Everything of one key-value head of one row of tokens. Gradients are sums over many tiles: kept as wide as
/// the arithmetic.
template <class S>
struct KvHead {
  Head<const S> k, v;
  Head<Wide<S>> dk, dv;
};

/// Rows that had to be widened.
template <class S>
struct BackwardRooms {
  WideRows<S> keys, values, queries;
};

/// A range of keys: multiples of the tile but for the end.
struct KeyPart {
  int64_t begin, end;
};

/// One tile of queries of one head against one part of the keys: its addends to dq, dk and dv. Parts come in
/// ascending order; dq is set by the first that the queries see.
template <class S>
void backward_tile(const AttentionDims& dims, const QueryTile& queries, KeyPart part,
                   BackwardTile<Wide<S>>& x, BackwardRooms<S>& rooms, const KvHead<S>& kv, Head<S> dq) {
  using T = Wide<S>;
  const int64_t D = dims.D;
  if (queries.begin_key() >= part.begin) {
    std::fill_n(x.dqueries, D * tile, T{0});
  } else {
    copy_transposed<T>(queries,
                       wide_rows<S>({dq.data, dq.stride}, queries.first, queries.count, D, rooms.queries), D,
                       x.dqueries);
  }
  const int64_t end = std::min(queries.end_key(), part.end);
  for (int64_t key = std::max(queries.begin_key(), part.begin); key < end; key += tile) {
    const int64_t keys = std::min(tile, end - key);
    const Head<const T> k = wide_rows(kv.k, key, keys, D, rooms.keys),
                        v = wide_rows(kv.v, key, keys, D, rooms.values);
    // 1. Scores and gradients of the probabilities.
    multiply_scores(queries, k, key, keys, D, x.queries, x.probabilities);
    multiply_scores(queries, v, key, keys, D, x.dout, x.dscores);
    if (queries.is_cut(key, keys)) {
      mask_scores(queries, key, keys, -std::numeric_limits<T>::infinity(), x.probabilities);
      mask_scores(queries, key, keys, T{0}, x.dscores);
    }
    softmax_backward(x, keys, static_cast<T>(dims.scale));
    // 2. dv += p dout, dk += ds q, dq += ds' k.
    accumulate_keys(queries, x.probabilities, x.dout_rows, key, keys, D, x.dkeys, kv.dv);
    accumulate_keys(queries, x.dscores, x.query_rows, key, keys, D, x.dkeys, kv.dk);
    accumulate_rows(queries, k, key, keys, D, x.dscores, x.dqueries);
  }
  store_transposed<S>(queries, x.dqueries, D, dq, x.queries);
}

/// delta[t] = out . dout of each query of the tile; both also into x, with the log-sum-exps.
template <class S>
void load_row_sums(const QueryTile& queries, Head<const S> out, Head<const S> dout, int64_t D,
                   const Wide<S>* lse, Wide<S>* delta, BackwardTile<Wide<S>>& x) {
  using T = Wide<S>;
  std::fill_n(x.lse, tile, T{0});
  std::fill_n(x.delta, tile, T{0});
  for (int64_t i = 0; i < queries.count; ++i) {
    const S* a = out.row(queries.first + i);
    const S* b = dout.row(queries.first + i);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; ++d) sum += widen(a[d]) * widen(b[d]);
    x.delta[i] = delta[queries.first + i] = sum;
    x.lse[i] = lse[queries.first + i];
  }
}

/// The tensors of a call, and what one task does with them.
template <class S>
struct BackwardCall {
  const AttentionDims& dims;
  Tensor q, k, v, document_start, out, lse, dout, delta, dq;

  /// All queries of the heads that read key-value head `kv` of row b, against one part of its keys. What it
  /// adds to dk and dv are the gradients of that head.
  void run(int64_t b, int64_t kv, KeyPart part, Head<Wide<S>> dk, Head<Wide<S>> dv) const {
    using T = Wide<S>;
    const KvHead<S> keys{head_of<const S>(dims, k, b, kv), head_of<const S>(dims, v, b, kv), dk, dv};
    BackwardTile<T> x;
    BackwardRooms<S> rooms;
    for (int64_t h = 0; h < dims.H; ++h) {
      if (kv_head_of(dims, h) != kv) continue;
      const Head<const S> head_q = head_of<const S>(dims, q, b, h),
                          head_dout = head_of<const S>(dims, dout, b, h);
      const int64_t position = (b * dims.H + h) * dims.T;
      for (int64_t first = part.begin; first < dims.T; first += tile) {
        const QueryTile queries(dims, document_start.as<int32_t>(), b, first);
        if (queries.begin_key() >= part.end) continue;
        load_row_sums<S>(queries, head_of<const S>(dims, out, b, h), head_dout, dims.D,
                         lse.as<T>() + position, delta.as<T>() + position, x);
        const auto rows = wide_rows(head_q, first, queries.count, dims.D, rooms.queries);
        copy_transposed(queries, rows, dims.D, x.queries);
        copy_rows(queries, rows, dims.D, x.query_rows);
        const auto dout_rows = wide_rows(head_dout, first, queries.count, dims.D, rooms.queries);
        copy_transposed(queries, dout_rows, dims.D, x.dout);
        copy_rows(queries, dout_rows, dims.D, x.dout_rows);
        backward_tile<S>(dims, queries, part, x, rooms, keys, head_of<S>(dims, dq, b, h));
      }
    }
  }
};

/// Parts of the keys of a head. More than one only where whole heads leave threads idle: a part loads the
/// queries again.
int64_t key_parts(const AttentionDims& dims, int threads) {
  constexpr int64_t part_length = 512;
  const bool fills_threads = dims.B * dims.K % threads == 0 || dims.B * dims.K >= 8 * threads;
  return fills_threads ? 1 : (dims.T + part_length - 1) / part_length;
}

/// A chain is a key-value head: dk and dv are summed over its query heads and their tiles in ascending order,
/// dq over its tiles of keys in ascending order, whatever the number of threads and parts.
template <class T>
void backward_in_place(Context& context, const BackwardCall<T>& call, Tensor dk, Tensor dv) {
  cpu::fill(context, dk, 0);
  cpu::fill(context, dv, 0);
  const AttentionDims& dims = call.dims;
  const int64_t tiles = (dims.T + tile - 1) / tile, parts = key_parts(dims, context.threads);
  parallel_chains(context.threads, dims.B * dims.K, parts, [&](int64_t chain, int64_t part) {
    const int64_t b = chain / dims.K, kv = chain % dims.K;
    const KeyPart keys{tiles * part / parts * tile, std::min(tiles * (part + 1) / parts * tile, dims.T)};
    call.run(b, kv, keys, head_of<T>(dims, dk, b, kv), head_of<T>(dims, dv, b, kv));
  });
}

/// The same where dk and dv are narrow: each head's sums run in scratch, whole heads only, since a part's dq
/// would be rounded before the next part adds to it.
template <class S>
void backward_in_scratch(Context& context, const BackwardCall<S>& call, Tensor dk, Tensor dv) {
  const AttentionDims& dims = call.dims;
  const int64_t heads = dims.B * dims.K, slot_bytes = attention_slot_bytes(dims.T, dims.D);
  const int64_t granted = context.scratch ? context.scratch.bytes() : 0;
  if (heads * dims.T == 0) return;
  check(granted >= slot_bytes, "attention_backward: {} bytes of scratch, {} are needed", granted, slot_bytes);
  const int64_t slots = std::min({int64_t{context.threads}, heads, granted / slot_bytes});
  parallel_tasks(context.threads, slots, [&](int64_t slot) {
    float* sums = static_cast<float*>(context.scratch.data) + slot * 2 * dims.T * dims.D;
    const Head<float> key_sums{sums, dims.D}, value_sums{sums + dims.T * dims.D, dims.D};
    for (int64_t head = slot; head < heads; head += slots) {
      const int64_t b = head / dims.K, kv = head % dims.K;
      std::fill_n(sums, 2 * dims.T * dims.D, 0.0f);
      call.run(b, kv, {0, dims.T}, key_sums, value_sums);
      const Head<S> to_dk = head_of<S>(dims, dk, b, kv), to_dv = head_of<S>(dims, dv, b, kv);
      for (int64_t t = 0; t < dims.T; ++t) {
        store_row(key_sums.row(t), dims.D, to_dk.row(t));
        store_row(value_sums.row(t), dims.D, to_dv.row(t));
      }
    }
  });
}

}  // namespace

void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv) {
  check(dims.D <= max_head_size, ExitCode::usage,
        "attention on a CPU has heads of at most {} elements, the model has {}", int64_t{max_head_size},
        dims.D);
  with_storage(q.dtype, [&]<class S>() {
    const BackwardCall<S> call{dims, q, k, v, document_start, out, lse, dout, delta, dq};
    if constexpr (is_narrow<S>) {
      backward_in_scratch(context, call, dk, dv);
    } else {
      backward_in_place(context, call, dk, dv);
    }
  });
}

}  // namespace ptrain::cpu
