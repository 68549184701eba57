// Attention of one new token a sequence on a CPU: bound by reading the cache. Not for prefill: that is
// attention_forward.
#include <algorithm>
#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class T>
T dot(const T* a, const T* b, int64_t D) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) sum += a[d] * b[d];
  return sum;
}

/// Of all keys of one query so far: out is not yet divided by sum.
template <class T>
struct Running {
  T largest = -std::numeric_limits<T>::infinity();
  double sum = 0;
};

/// Takes `keys` more keys in.
template <class T>
void decode_tile(const T* q, Head<const T> k, Head<const T> v, int64_t key, int64_t keys, int64_t D, T scale,
                 Running<T>& running, T* out) {
  T scores[tile];
  T largest = running.largest;
  for (int64_t s = 0; s < keys; ++s) {
    scores[s] = scale * dot(q, k.row(key + s), D);
    largest = std::max(largest, scores[s]);
  }
  const T shrink = vector_exp(running.largest - largest);
  for (int64_t d = 0; d < D; ++d) out[d] *= shrink;
  running.sum *= static_cast<double>(shrink);
  running.largest = largest;
#pragma omp simd
  for (int64_t s = 0; s < keys; ++s) scores[s] = vector_exp(scores[s] - largest);
  for (int64_t s = 0; s < keys; ++s) {
    const T* row = v.row(key + s);
    running.sum += static_cast<double>(scores[s]);
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) out[d] += scores[s] * row[d];
  }
}

}  // namespace

void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out) {
  with_float(q.dtype, [&]<class T>() {
    const int32_t* length = lengths.as<int32_t>();
    const T* queries = q.as<T>();
    const T* all_keys = keys.as<T>();
    const T* all_values = values.as<T>();
    T* outputs = out.as<T>();
    const int64_t P = keys.shape[1], D = dims.D;
    parallel_tasks(context.threads, dims.B * dims.H, [&](int64_t task) {
      const int64_t b = task / dims.H, h = task % dims.H, kv = kv_head_of(dims, h);
      const Head<const T> k{all_keys + b * P * keys.row_stride + kv * D, keys.row_stride};
      const Head<const T> v{all_values + b * P * values.row_stride + kv * D, values.row_stride};
      T* row = outputs + b * out.row_stride + h * D;
      Running<T> running;
      std::fill_n(row, D, T{0});
      const int64_t end = length[b];
      for (int64_t key = dims.window > 0 ? std::max<int64_t>(0, end - dims.window) : 0; key < end;
           key += tile) {
        decode_tile(queries + b * q.row_stride + h * D, k, v, key, std::min(tile, end - key), D,
                    static_cast<T>(dims.scale), running, row);
      }
      const T factor = static_cast<T>(1 / running.sum);
      for (int64_t d = 0; d < D; ++d) row[d] *= factor;
    });
  });
}

}  // namespace ptrain::cpu
