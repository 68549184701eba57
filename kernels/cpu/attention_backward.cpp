// Attention backward on a CPU: the scores of each tile are computed again from the log-sum-exp. After Dao et
// al.: "FlashAttention" (2022), with the sums in a fixed order.
#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
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

/// to: (tile, padded D) = the head's rows of that tile, the rest zeros.
template <class T>
void copy_rows(const QueryTile& queries, Head<const T> from, int64_t D, T* to) {
  const int64_t width = padded(D);
  std::fill_n(to, tile * width, T{0});
  for (int64_t i = 0; i < queries.count; ++i) std::copy_n(from.row(queries.first + i), D, to + i * width);
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

/// Everything of one key-value head of one row of tokens.
template <class T>
struct KvHead {
  Head<const T> k, v;
  Head<T> dk, dv;
};

/// A range of keys: multiples of the tile but for the end.
struct KeyPart {
  int64_t begin, end;
};

/// One tile of queries of one head against one part of the keys: its addends to dq, dk and dv. Parts come in
/// ascending order; dq is set by the first that the queries see.
template <class T>
void backward_tile(const AttentionDims& dims, const QueryTile& queries, KeyPart part, BackwardTile<T>& x,
                   const KvHead<T>& kv, Head<T> dq) {
  const int64_t D = dims.D;
  if (queries.begin_key() >= part.begin) {
    std::fill_n(x.dqueries, D * tile, T{0});
  } else {
    copy_transposed<T>(queries, {dq.data, dq.stride}, D, x.dqueries);
  }
  const int64_t end = std::min(queries.end_key(), part.end);
  for (int64_t key = std::max(queries.begin_key(), part.begin); key < end; key += tile) {
    const int64_t keys = std::min(tile, end - key);
    // 1. Scores and gradients of the probabilities.
    multiply_scores(queries, kv.k, key, keys, D, x.queries, x.probabilities);
    multiply_scores(queries, kv.v, key, keys, D, x.dout, x.dscores);
    if (queries.is_cut(key, keys)) {
      mask_scores(queries, key, keys, -std::numeric_limits<T>::infinity(), x.probabilities);
      mask_scores(queries, key, keys, T{0}, x.dscores);
    }
    softmax_backward(x, keys, static_cast<T>(dims.scale));
    // 2. dv += p dout, dk += ds q, dq += ds' k.
    accumulate_keys(queries, x.probabilities, x.dout_rows, key, keys, D, x.dkeys, kv.dv);
    accumulate_keys(queries, x.dscores, x.query_rows, key, keys, D, x.dkeys, kv.dk);
    accumulate_rows(queries, kv.k, key, keys, D, x.dscores, x.dqueries);
  }
  transpose<T>(x.dqueries, tile, D, queries.count, dq.row(queries.first), dq.stride);
}

/// delta[t] = out . dout of each query of the tile; both also into x, with the log-sum-exps.
template <class T>
void load_row_sums(const QueryTile& queries, Head<const T> out, Head<const T> dout, int64_t D, const T* lse,
                   T* delta, BackwardTile<T>& x) {
  std::fill_n(x.lse, tile, T{0});
  std::fill_n(x.delta, tile, T{0});
  for (int64_t i = 0; i < queries.count; ++i) {
    const T* a = out.row(queries.first + i);
    const T* b = dout.row(queries.first + i);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; ++d) sum += a[d] * b[d];
    x.delta[i] = delta[queries.first + i] = sum;
    x.lse[i] = lse[queries.first + i];
  }
}

/// The tensors of a call, and what one task does with them.
template <class T>
struct BackwardCall {
  const AttentionDims& dims;
  Tensor q, k, v, document_start, out, lse, dout, delta, dq, dk, dv;

  /// All queries of the heads that read key-value head `kv` of row b, against one part of its keys.
  void run(int64_t b, int64_t kv, KeyPart part) const {
    const KvHead<T> keys{head_of<const T>(dims, k, b, kv), head_of<const T>(dims, v, b, kv),
                         head_of<T>(dims, dk, b, kv), head_of<T>(dims, dv, b, kv)};
    BackwardTile<T> x;
    for (int64_t h = 0; h < dims.H; ++h) {
      if (kv_head_of(dims, h) != kv) continue;
      const Head<const T> head_q = head_of<const T>(dims, q, b, h),
                          head_dout = head_of<const T>(dims, dout, b, h);
      const int64_t position = (b * dims.H + h) * dims.T;
      for (int64_t first = part.begin; first < dims.T; first += tile) {
        const QueryTile queries(dims, document_start.as<int32_t>(), b, first);
        if (queries.begin_key() >= part.end) continue;
        load_row_sums<T>(queries, head_of<const T>(dims, out, b, h), head_dout, dims.D,
                         lse.as<T>() + position, delta.as<T>() + position, x);
        copy_transposed(queries, head_q, dims.D, x.queries);
        copy_transposed(queries, head_dout, dims.D, x.dout);
        copy_rows(queries, head_q, dims.D, x.query_rows);
        copy_rows(queries, head_dout, dims.D, x.dout_rows);
        backward_tile(dims, queries, part, x, keys, head_of<T>(dims, dq, b, h));
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

}  // namespace

void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv) {
  check(dims.D <= max_head_size, ExitCode::usage,
        "attention on a CPU has heads of at most {} elements, the model has {}", int64_t{max_head_size},
        dims.D);
  cpu::fill(context, dk, 0);
  cpu::fill(context, dv, 0);
  const int64_t tiles = (dims.T + tile - 1) / tile, parts = key_parts(dims, context.threads);
  with_float(q.dtype, [&]<class T>() {
    const BackwardCall<T> call{dims, q, k, v, document_start, out, lse, dout, delta, dq, dk, dv};
    // A chain is a key-value head: dk and dv are summed over its query heads and their tiles in ascending
    // order, dq over its tiles of keys in ascending order, whatever the number of threads and parts.
    parallel_chains(context.threads, dims.B * dims.K, parts, [&](int64_t chain, int64_t part) {
      const KeyPart keys{tiles * part / parts * tile, std::min(tiles * (part + 1) / parts * tile, dims.T)};
      call.run(chain / dims.K, chain % dims.K, keys);
    });
  });
}

}  // namespace ptrain::cpu
