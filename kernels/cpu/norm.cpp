// RMSNorm on a CPU. Sums of a row run in f64, so that a row of any length is as exact as its elements.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class S>
double sum_of_squares_of(const S* x, int64_t C) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) {
    const auto value = static_cast<double>(widen(x[c]));
    sum += value * value;
  }
  return sum;
}

/// sum over c of dy[c] * w[c] * x[c]
template <class S>
double weighted_dot(const S* dy, const S* w, const S* x, int64_t C) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c)
    sum += static_cast<double>(widen(dy[c]) * widen(w[c])) * static_cast<double>(widen(x[c]));
  return sum;
}

/// dx = dresidual + rstd * (dy * w - x * mean(dy * w * x) * rstd^2), row by row.
template <class S>
void backward_input(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                    Tensor dx) {
  using T = Wide<S>;
  const S* weight = w.as<S>();
  const T* scale = rstd.as<T>();
  const int64_t C = x.columns();
  parallel_rows(context.threads, x.rows(), C, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const S* in = x.as<S>() + n * x.row_stride;
      const S* dout = dy.as<S>() + n * dy.row_stride;
      const S* residual = dresidual ? dresidual.as<S>() + n * dresidual.row_stride : nullptr;
      S* din = dx.as<S>() + n * dx.row_stride;
      const T r = scale[n];
      const double mean = weighted_dot(dout, weight, in, C) / static_cast<double>(C);
      const T slope = static_cast<T>(mean * r * r);
      const auto gradient = [=](int64_t c) {
        return r * (widen(dout[c]) * widen(weight[c]) - widen(in[c]) * slope);
      };
      if (residual) {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) din[c] = convert<S>(widen(residual[c]) + gradient(c));
      } else {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) din[c] = convert<S>(gradient(c));
      }
    }
  });
}

/// dw[c] += sum over rows of dy * x * rstd. Threads share the columns; rows are summed ascending in f64.
template <class S, class G>
void backward_weight(Context& context, Tensor x, Tensor rstd, Tensor dy, Tensor dw) {
  using T = Wide<S>;
  constexpr int64_t width = 64;  // columns whose sums stay in registers
  const int64_t N = x.rows(), C = x.columns(), blocks = (C + width - 1) / width;
  const S* in = x.as<S>();
  const S* dout = dy.as<S>();
  const T* scale = rstd.as<T>();
  G* dweight = dw.as<G>();
  const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N * width, 1), 1);
  parallel_ranges(context.threads, blocks, grain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * width, count = std::min(width, C - first);
      double sums[width] = {};
      for (int64_t n = 0; n < N; ++n) {
        const S* a = in + n * x.row_stride + first;
        const S* b = dout + n * dy.row_stride + first;
        const T r = scale[n];
#pragma omp simd
        for (int64_t c = 0; c < count; ++c) sums[c] += static_cast<double>(widen(b[c]) * (widen(a[c]) * r));
      }
      for (int64_t c = 0; c < count; ++c) {
        dweight[first + c] = convert<G>(static_cast<double>(widen(dweight[first + c])) + sums[c]);
      }
    }
  });
}

}  // namespace

void rmsnorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor sum, Tensor y, Tensor rstd,
                     double eps) {
  with_storage(y.dtype, [&]<class S>() {
    using T = Wide<S>;
    const S* weight = w.as<S>();
    T* scale = rstd.as<T>();
    const int64_t C = y.columns();
    parallel_rows(context.threads, y.rows(), C, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const S* in = x.as<S>() + n * x.row_stride;
        if (delta) {
          const S* more = delta.as<S>() + n * delta.row_stride;
          S* total = sum.as<S>() + n * sum.row_stride;
          // What follows reads the sum as it is kept: backward will see the same numbers.
#pragma omp simd
          for (int64_t c = 0; c < C; ++c) total[c] = convert<S>(widen(in[c]) + widen(more[c]));
          in = total;
        }
        S* out = y.as<S>() + n * y.row_stride;
        const T r = static_cast<T>(1 / std::sqrt(sum_of_squares_of(in, C) / static_cast<double>(C) + eps));
        scale[n] = r;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) out[c] = convert<S>(widen(in[c]) * r * widen(weight[c]));
      }
    });
  });
}

void rmsnorm_backward(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                      Tensor dx, Tensor dw) {
  with_gradient(x.dtype, dw.dtype, [&]<class S, class G>() {
    // First the weight: dx may lie over dy.
    backward_weight<S, G>(context, x, rstd, dy, dw);
    backward_input<S>(context, x, w, rstd, dy, dresidual, dx);
  });
}

}  // namespace ptrain::cpu
