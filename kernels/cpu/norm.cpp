// RMSNorm on a CPU. Sums of a row run in f64, so that a row of any length is as exact as its elements.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class T>
double dot(const T* a, const T* b, int64_t C) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += static_cast<double>(a[c]) * static_cast<double>(b[c]);
  return sum;
}

/// sum over c of dy[c] * w[c] * x[c]
template <class T>
double weighted_dot(const T* dy, const T* w, const T* x, int64_t C) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += static_cast<double>(dy[c] * w[c]) * static_cast<double>(x[c]);
  return sum;
}

/// dx = dresidual + rstd * (dy * w - x * mean(dy * w * x) * rstd^2), row by row.
template <class T>
void backward_input(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                    Tensor dx) {
  const T* weight = w.as<T>();
  const T* scale = rstd.as<T>();
  const int64_t C = x.columns();
  parallel_rows(context.threads, x.rows(), C, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const T* in = x.as<T>() + n * x.row_stride;
      const T* dout = dy.as<T>() + n * dy.row_stride;
      const T* residual = dresidual ? dresidual.as<T>() + n * dresidual.row_stride : nullptr;
      T* din = dx.as<T>() + n * dx.row_stride;
      const T r = scale[n];
      const double mean = weighted_dot(dout, weight, in, C) / static_cast<double>(C);
      const T slope = static_cast<T>(mean * r * r);
      if (residual) {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) din[c] = residual[c] + r * (dout[c] * weight[c] - in[c] * slope);
      } else {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) din[c] = r * (dout[c] * weight[c] - in[c] * slope);
      }
    }
  });
}

/// dw[c] += sum over rows of dy * x * rstd. Threads share the columns; rows are summed ascending in f64.
template <class T>
void backward_weight(Context& context, Tensor x, Tensor rstd, Tensor dy, Tensor dw) {
  constexpr int64_t width = 64;  // columns whose sums stay in registers
  const int64_t N = x.rows(), C = x.columns(), blocks = (C + width - 1) / width;
  const T* in = x.as<T>();
  const T* dout = dy.as<T>();
  const T* scale = rstd.as<T>();
  T* dweight = dw.as<T>();
  const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N * width, 1), 1);
  parallel_ranges(context.threads, blocks, grain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * width, count = std::min(width, C - first);
      double sums[width] = {};
      for (int64_t n = 0; n < N; ++n) {
        const T* a = in + n * x.row_stride + first;
        const T* b = dout + n * dy.row_stride + first;
        const T r = scale[n];
#pragma omp simd
        for (int64_t c = 0; c < count; ++c) sums[c] += static_cast<double>(b[c] * (a[c] * r));
      }
      for (int64_t c = 0; c < count; ++c) {
        dweight[first + c] = static_cast<T>(static_cast<double>(dweight[first + c]) + sums[c]);
      }
    }
  });
}

}  // namespace

void rmsnorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor sum, Tensor y, Tensor rstd,
                     double eps) {
  with_float(y.dtype, [&]<class T>() {
    const T* weight = w.as<T>();
    T* scale = rstd.as<T>();
    const int64_t C = y.columns();
    parallel_rows(context.threads, y.rows(), C, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* in = x.as<T>() + n * x.row_stride;
        if (delta) {
          const T* more = delta.as<T>() + n * delta.row_stride;
          T* total = sum.as<T>() + n * sum.row_stride;
#pragma omp simd
          for (int64_t c = 0; c < C; ++c) total[c] = in[c] + more[c];
          in = total;
        }
        T* out = y.as<T>() + n * y.row_stride;
        const T r = static_cast<T>(1 / std::sqrt(dot(in, in, C) / static_cast<double>(C) + eps));
        scale[n] = r;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) out[c] = in[c] * r * weight[c];
      }
    });
  });
}

void rmsnorm_backward(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                      Tensor dx, Tensor dw) {
  with_float(x.dtype, [&]<class T>() {
    // First the weight: dx may lie over dy.
    backward_weight<T>(context, x, rstd, dy, dw);
    backward_input<T>(context, x, w, rstd, dy, dresidual, dx);
  });
}

}  // namespace ptrain::cpu
