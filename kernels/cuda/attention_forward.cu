// Attention forward on a GPU: a block holds a tile of queries of one head, tiles of keys and values pass by,
// with a running maximum and sum for each query and no (T, T) matrix. After Dao: "FlashAttention-2" (2023).
// cuDNN takes the cases that it serves.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// How the work is cut: every warp has 16 * m queries; keys pass `keys` at a time.
template <class T, int columns>
struct ForwardShape {
  static constexpr int warps = 4, threads = warps * warp_size;
  static constexpr bool is_wide = std::is_same_v<T, float>;
  static constexpr int m = is_wide || columns > 128 ? 1 : 2;
  static constexpr int keys = is_wide         ? (columns > 128 ? 16 : 32)
                              : columns > 128 ? 32
                              : columns > 96  ? 48
                                              : 64;
  static constexpr int warp_queries = 16 * m, queries = warps * warp_queries;
  static constexpr int64_t shared_bytes = (queries + 2 * keys) * Tile<T, columns>::row_bytes;
};

template <class T>
struct ForwardCall {
  AttentionSizes sizes;
  Heads<const T> q, k, v;
  Heads<T> out;
  float* lse;  // (B, H, T)
};

/// The running softmax of a warp's queries. A thread has the rows g and g + 8 of each 16; its sums are those
/// of its own columns until the end.
template <int m>
struct Softmax {
  float largest[m][2];  // of the raw scores so far
  float sum[m][2];      // of exp(scale * (score - largest)) so far
};

template <int m>
__device__ void start(Softmax<m>& softmax) {
#pragma unroll
  for (int i = 0; i < m; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      softmax.largest[i][half] = -INFINITY;
      softmax.sum[i][half] = 0;
    }
  }
}

/// scores: raw in, exp(scale * (score - largest)) out; out is scaled to the new largest. `scale` carries the
/// step from base e to base 2.
template <int m, int keys, int n>
__device__ void softmax_step(Softmax<m>& softmax, Accumulator<m, keys>& scores, Accumulator<m, n>& out,
                             float scale) {
#pragma unroll
  for (int i = 0; i < m; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float before = softmax.largest[i][half];
      float largest = before;
#pragma unroll
      for (int j = 0; j < keys; ++j)
        largest = fmaxf(largest, fmaxf(scores[i][j][2 * half], scores[i][j][2 * half + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, 2));
      // A query that has seen no key yet keeps -infinity; any finite shift gives it exp(...) = 0.
      const float shift = largest == -INFINITY ? 0 : largest * scale;
      const float shrink = power_of_two(before * scale - shift);
      float sum = softmax.sum[i][half] * shrink;
#pragma unroll
      for (int j = 0; j < keys; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[i][j][e] = power_of_two(scores[i][j][e] * scale - shift);
          sum += scores[i][j][e];
        }
      }
#pragma unroll
      for (int j = 0; j < n; ++j) {
        out[i][j][2 * half] *= shrink;
        out[i][j][2 * half + 1] *= shrink;
      }
      softmax.largest[i][half] = largest;
      softmax.sum[i][half] = sum;
    }
  }
}

/// The place of a warp in the row of tokens.
struct WarpQueries {
  int b, first;  // row of the batch; time of the warp's first query
};

/// Scores of keys that a query does not see become -infinity.
template <int m, int keys>
__device__ void mask(const AttentionSizes& sizes, const WarpQueries& warp, int key,
                     Accumulator<m, keys>& scores) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < m; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = warp.first + 16 * i + g + 8 * half, first = sizes.first_key(warp.b, query);
#pragma unroll
      for (int j = 0; j < keys; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int position = key + 8 * j + 2 * t + e;
          if (position < first || position > query) scores[i][j][2 * half + e] = -INFINITY;
        }
      }
    }
  }
}

/// Divides by the sums and writes rows and log-sum-exps. tile: the warp's rows of the tile of queries, whose
/// place the results take.
template <class T, int columns, int m>
__device__ void finish(const ForwardCall<T>& call, const WarpQueries& warp, int h, const Softmax<m>& softmax,
                       const Accumulator<m, columns / 8>& out, T* tile) {
  const AttentionSizes& sizes = call.sizes;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  float factors[m][2];
#pragma unroll
  for (int i = 0; i < m; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = softmax.sum[i][half];
      sum += __shfl_xor_sync(all_lanes, sum, 1);
      sum += __shfl_xor_sync(all_lanes, sum, 2);
      factors[i][half] = 1 / sum;
      const int query = warp.first + 16 * i + lane / 4 + 8 * half;
      if (query < sizes.T && lane % 4 == 0)
        call.lse[(static_cast<int64_t>(warp.b) * sizes.H + h) * sizes.T + query] =
            softmax.largest[i][half] * sizes.scale + logf(sum);
    }
  }
  __syncwarp();  // the warp's queries were read for the last time
  write_tile<T, columns>(tile, out, factors);
  __syncwarp();
  store_rows<T, columns, columns>(tile, call.out.of(warp.b, h, sizes.T, sizes.D), warp.first, 16 * m, sizes.T,
                                  0, sizes.D, sizes.is_vectorizable);
}

/// Blocks: x a head, y a tile of queries, the last first since it has the most keys, z a row of the batch.
template <class T, int columns>
__global__ void __launch_bounds__(ForwardShape<T, columns>::threads) forward_kernel(ForwardCall<T> call) {
  using Shape = ForwardShape<T, columns>;
  constexpr int m = Shape::m, stride = Tile<T, columns>::stride;
  const AttentionSizes& sizes = call.sizes;
  const int h = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.z);
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Shape::queries;
  const int own_row = static_cast<int>(threadIdx.x) / warp_size * Shape::warp_queries;
  const WarpQueries warp = {b, first + own_row};
  const Rows<const T> k = call.k.of(b, sizes.kv_head(h), sizes.T, sizes.D),
                      v = call.v.of(b, sizes.kv_head(h), sizes.T, sizes.D);
  const auto load_keys = [&](T* tile, Rows<const T> from, int key) {
    load_tile<T, columns, Shape::keys, Shape::threads>(tile, from, key, sizes.T, sizes.D,
                                                       sizes.is_vectorizable);
    commit_copies();
  };
  // 1. The queries and the first keys are on their way; which keys are seen at all?
  T* queries = dynamic_shared<T>();
  T* keys = queries + Shape::queries * stride;
  T* values = keys + Shape::keys * stride;
  const KeyRange range = first_keys(sizes, b, first, Shape::queries);
  const int begin = range.lowest / Shape::keys * Shape::keys;
  const int end = first + Shape::queries < sizes.T ? first + Shape::queries : sizes.T;
  load_tile<T, columns, Shape::queries, Shape::threads>(queries, call.q.of(b, h, sizes.T, sizes.D), first,
                                                        sizes.T, sizes.D, sizes.is_vectorizable);
  load_keys(keys, k, begin);
  // 2. Tiles of keys and values pass by. While one is in use the other is copied.
  Softmax<m> softmax;
  Accumulator<m, columns / 8> out;
  start(softmax);
  clear<m, columns / 8>(out);
  for (int key = begin; key < end; key += Shape::keys) {
    const bool is_seen = warp.first < sizes.T && key < warp.first + Shape::warp_queries;
    Accumulator<m, Shape::keys / 8> scores;
    wait_for_copies<0>();
    __syncthreads();  // the keys are there; the last values are no longer read
    load_keys(values, v, key);
    if (is_seen) {
      clear<m, Shape::keys / 8>(scores);
      multiply_by_rows<T, columns>(scores, queries + own_row * stride, keys);
      if (key < range.highest || key + Shape::keys - 1 > warp.first) mask(sizes, warp, key, scores);
    }
    wait_for_copies<0>();
    __syncthreads();  // the values are there; the keys are no longer read
    if (key + Shape::keys < end) load_keys(keys, k, key + Shape::keys);
    if (is_seen) {
      softmax_step(softmax, scores, out, sizes.scale * log2_of_e);
      multiply_by_columns<T, columns>(out, scores, values);
    }
  }
  // 3. Results.
  if (warp.first < sizes.T) finish<T, columns>(call, warp, h, softmax, out, queries + own_row * stride);
}

template <class T, int columns>
void forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v, Tensor document_start,
             Tensor out, Tensor lse) {
  using Shape = ForwardShape<T, columns>;
  static_assert(Shape::shared_bytes <= most_shared_bytes);
  const bool is_vectorizable = has_vector_heads(dims, {q, k, v, out});
  const ForwardCall<T> call = {attention_sizes(dims, document_start, is_vectorizable),
                               heads<const T>(q),
                               heads<const T>(k),
                               heads<const T>(v),
                               heads<T>(out),
                               elements<float>(lse)};
  const dim3 grid(static_cast<unsigned>(dims.H), static_cast<unsigned>(divide_up(dims.T, Shape::queries)),
                  static_cast<unsigned>(dims.B));
  launch(context, forward_kernel<T, columns>, grid, Shape::threads, Shape::shared_bytes, call);
}

}  // namespace

void attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                       Tensor document_start, Tensor out, Tensor lse) {
  if (cudnn_attention_forward(context, dims, q, k, v, document_start, out, lse)) return;
  with_head_size(q.dtype, dims.D, [&]<class T, int columns>() {
    forward<T, columns>(context, dims, q, k, v, document_start, out, lse);
  });
}

}  // namespace ptrain::cuda
