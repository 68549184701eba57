// Attention forward on a CPU: tiles of keys pass by a tile of queries, with a running maximum and sum for
// each query. After Milakov, Gimelshein: "Online normalizer calculation for softmax" (2018).
#include <cmath>
#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class S>
struct ForwardTile {
  using T = Wide<S>;
  alignas(64) T queries[max_head_size * tile];  // (D, tile)
  alignas(64) T out[max_head_size * tile];      // (D, tile), not yet divided by the sums
  alignas(64) T scores[tile * tile];            // (keys, tile)
  alignas(64) T largest[tile];                  // of the scaled scores so far
  alignas(64) T shrink[tile];
  alignas(64) double sums[tile];  // of exp(score - largest) so far
  WideRows<S> room;
};

/// scores: raw products in, exp(scale * score - largest) out; largest, sums and out follow.
template <class S>
void softmax_step(ForwardTile<S>& x, int64_t keys, int64_t D, Wide<S> scale) {
  using T = Wide<S>;
  T before[tile], shift[tile], sum[tile];
  for (int64_t i = 0; i < tile; ++i) before[i] = shift[i] = x.largest[i];
  for (int64_t s = 0; s < keys; ++s) {
    T* row = x.scores + s * tile;
#pragma omp simd
    for (int64_t i = 0; i < tile; ++i) {
      row[i] *= scale;
      shift[i] = row[i] > shift[i] ? row[i] : shift[i];
    }
  }
  bool has_changed = false;
  for (int64_t i = 0; i < tile; ++i) {
    has_changed |= shift[i] != before[i];
    x.largest[i] = shift[i];
    // A query that has seen no key yet keeps the maximum -infinity; any finite shift gives it exp(...) = 0.
    if (std::isinf(shift[i])) shift[i] = 0;
    sum[i] = 0;
  }
  for (int64_t s = 0; s < keys; ++s) {
    T* row = x.scores + s * tile;
#pragma omp simd
    for (int64_t i = 0; i < tile; ++i) {
      row[i] = vector_exp(row[i] - shift[i]);
      sum[i] += row[i];
    }
  }
  if (has_changed) {
    for (int64_t i = 0; i < tile; ++i) x.shrink[i] = vector_exp(before[i] - shift[i]);
    for (int64_t i = 0; i < tile; ++i) x.sums[i] *= static_cast<double>(x.shrink[i]);
    for (int64_t d = 0; d < D; ++d) {
#pragma omp simd
      for (int64_t i = 0; i < tile; ++i) x.out[d * tile + i] *= x.shrink[i];
    }
  }
  for (int64_t i = 0; i < tile; ++i) x.sums[i] += static_cast<double>(sum[i]);
}

template <class S>
void forward_tile(const AttentionDims& dims, const QueryTile& queries, Head<const S> q, Head<const S> k,
                  Head<const S> v, Head<S> out, Wide<S>* lse) {
  using T = Wide<S>;
  const int64_t D = dims.D;
  ForwardTile<S> x;
  // 1. Start of the running maximum, sum and output.
  std::fill_n(x.out, D * tile, T{0});
  std::fill_n(x.largest, tile, -std::numeric_limits<T>::infinity());
  std::fill_n(x.sums, tile, 0.0);
  copy_transposed(queries, wide_rows(q, queries.first, queries.count, D, x.room), D, x.queries);
  // 2. Every tile of keys that some query sees.
  for (int64_t key = queries.begin_key(); key < queries.end_key(); key += tile) {
    const int64_t keys = std::min(tile, queries.end_key() - key);
    multiply_scores(queries, wide_rows(k, key, keys, D, x.room), key, keys, D, x.queries, x.scores);
    if (queries.is_cut(key, keys))
      mask_scores(queries, key, keys, -std::numeric_limits<T>::infinity(), x.scores);
    softmax_step(x, keys, D, static_cast<T>(dims.scale));
    accumulate_rows(queries, wide_rows(v, key, keys, D, x.room), key, keys, D, x.scores, x.out);
  }
  // 3. Division by the sums, transposed back.
  T factors[tile] = {};
  for (int64_t i = 0; i < queries.count; ++i) {
    factors[i] = static_cast<T>(1 / x.sums[i]);
    lse[queries.first + i] = static_cast<T>(static_cast<double>(x.largest[i]) + std::log(x.sums[i]));
  }
  for (int64_t d = 0; d < D; ++d) {
#pragma omp simd
    for (int64_t i = 0; i < tile; ++i) x.out[d * tile + i] *= factors[i];
  }
  store_transposed<S>(queries, x.out, D, out, x.queries);
}

}  // namespace

void attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                       Tensor document_start, Tensor out, Tensor lse) {
  check(dims.D <= max_head_size, ExitCode::usage,
        "attention on a CPU has heads of at most {} elements, the model has {}", int64_t{max_head_size},
        dims.D);
  with_storage(q.dtype, [&]<class S>() {
    const int32_t* start = document_start.as<int32_t>();
    Wide<S>* sums = lse.as<Wide<S>>();
    const int64_t tiles = (dims.T + tile - 1) / tile, heads = dims.B * dims.H;
    parallel_tasks(context.threads, tiles * heads, [&](int64_t task) {
      // The last tile of queries has the most keys: longest tasks first.
      const int64_t b = task % heads / dims.H, h = task % dims.H, kv = kv_head_of(dims, h);
      const QueryTile queries(dims, start, b, (tiles - 1 - task / heads) * tile);
      forward_tile<S>(dims, queries, head_of<const S>(dims, q, b, h), head_of<const S>(dims, k, b, kv),
                      head_of<const S>(dims, v, b, kv), head_of<S>(dims, out, b, h),
                      sums + (b * dims.H + h) * dims.T);
    });
  });
}

}  // namespace ptrain::cpu
