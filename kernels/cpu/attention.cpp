// Causal attention on a CPU.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

int64_t kv_head(const AttentionDims& dims, int64_t h) {
  return (dims.first_head + h) / dims.group;
}

/// First key that query t of row b sees.
int64_t first_key(const AttentionDims& dims, const int32_t* document_start, int64_t b, int64_t t) {
  const int64_t start = document_start[b * dims.T + t];
  return dims.window > 0 ? std::max(start, t - dims.window + 1) : start;
}

template <class T>
T dot(const T* a, const T* b, int64_t D) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) sum += a[d] * b[d];
  return sum;
}

template <class T>
void add_scaled(T factor, const T* x, T* y, int64_t D) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) y[d] += factor * x[d];
}

/// out = softmax over keys first..last of scale * q . k, times v, by one pass with a running maximum. Returns
/// the log-sum-exp.
template <class T>
T attend(const T* q, const T* keys, int64_t key_stride, const T* values, int64_t value_stride, int64_t first,
         int64_t last, int64_t D, T scale, T* out) {
  T largest = -std::numeric_limits<T>::infinity(), sum = 0;
  std::fill_n(out, D, T{0});
  for (int64_t s = first; s <= last; ++s) {
    const T score = scale * dot(q, keys + s * key_stride, D);
    if (score > largest) {
      const T shrink = std::exp(largest - score);
      sum *= shrink;
      for (int64_t d = 0; d < D; ++d) out[d] *= shrink;
      largest = score;
    }
    const T p = std::exp(score - largest);
    sum += p;
    add_scaled(p, values + s * value_stride, out, D);
  }
  for (int64_t d = 0; d < D; ++d) out[d] /= sum;
  return largest + std::log(sum);
}

}  // namespace

void attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                       Tensor document_start, Tensor out, Tensor lse) {
  with_float(q.dtype, [&]<class T>() {
    const int32_t* start = document_start.as<int32_t>();
    parallel_tasks(context.threads, dims.B * dims.H, [&](int64_t task) {
      const int64_t b = task / dims.H, h = task % dims.H, kv = kv_head(dims, h);
      const T* keys = static_cast<const T*>(k.data) + b * dims.T * k.row_stride + kv * dims.D;
      const T* values = static_cast<const T*>(v.data) + b * dims.T * v.row_stride + kv * dims.D;
      for (int64_t t = 0; t < dims.T; ++t) {
        const int64_t n = b * dims.T + t;
        static_cast<T*>(lse.data)[(b * dims.H + h) * dims.T + t] =
            attend(static_cast<const T*>(q.data) + n * q.row_stride + h * dims.D, keys, k.row_stride, values,
                   v.row_stride, first_key(dims, start, b, t), t, dims.D, static_cast<T>(dims.scale),
                   static_cast<T*>(out.data) + n * out.row_stride + h * dims.D);
      }
    });
  });
}

void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv) {
  cpu::fill(context, dk, 0);
  cpu::fill(context, dv, 0);
  cpu::fill(context, dq, 0);
  with_float(q.dtype, [&]<class T>() {
    const int32_t* start = document_start.as<int32_t>();
    const int64_t D = dims.D;
    const auto at = [D](Tensor x, int64_t n, int64_t h) {
      return static_cast<T*>(x.data) + n * x.row_stride + h * D;
    };
    parallel_tasks(context.threads, dims.B * dims.K, [&](int64_t task) {
      const int64_t b = task / dims.K, kv = task % dims.K;
      for (int64_t h = 0; h < dims.H; ++h) {
        if (kv_head(dims, h) != kv) continue;
        for (int64_t t = 0; t < dims.T; ++t) {
          const int64_t n = b * dims.T + t, position = (b * dims.H + h) * dims.T + t;
          const T row_delta = dot(at(out, n, h), at(dout, n, h), D);
          static_cast<T*>(delta.data)[position] = row_delta;
          for (int64_t s = first_key(dims, start, b, t); s <= t; ++s) {
            const int64_t key = b * dims.T + s;
            const T score = static_cast<T>(dims.scale) * dot(at(q, n, h), at(k, key, kv), D);
            const T p = std::exp(score - static_cast<T*>(lse.data)[position]);
            const T ds =
                p * (dot(at(dout, n, h), at(v, key, kv), D) - row_delta) * static_cast<T>(dims.scale);
            add_scaled(p, at(dout, n, h), at(dv, key, kv), D);
            add_scaled(ds, at(q, n, h), at(dk, key, kv), D);
            add_scaled(ds, at(k, key, kv), at(dq, n, h), D);
          }
        }
      }
    });
  });
}

void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out) {
  with_float(q.dtype, [&]<class T>() {
    const int32_t* length = lengths.as<int32_t>();
    const int64_t P = keys.shape[1];
    parallel_tasks(context.threads, dims.B * dims.H, [&](int64_t task) {
      const int64_t b = task / dims.H, h = task % dims.H, kv = kv_head(dims, h);
      const int64_t last = length[b] - 1;
      const int64_t first = dims.window > 0 ? std::max<int64_t>(0, last - dims.window + 1) : 0;
      attend(static_cast<const T*>(q.data) + b * q.row_stride + h * dims.D,
             static_cast<const T*>(keys.data) + b * P * keys.row_stride + kv * dims.D, keys.row_stride,
             static_cast<const T*>(values.data) + b * P * values.row_stride + kv * dims.D, values.row_stride,
             first, last, dims.D, static_cast<T>(dims.scale),
             static_cast<T*>(out.data) + b * out.row_stride + h * dims.D);
    });
  });
}

}  // namespace ptrain::cpu
