// LayerNorm on a CPU. Sums of a row run in f64, the variance around the mean that was found before, so that a
// row of any length and any offset is as exact as its elements.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class S>
double mean_of(const S* x, int64_t C) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += static_cast<double>(widen(x[c]));
  return sum / static_cast<double>(C);
}

template <class S>
double variance_of(const S* x, double mean, int64_t C) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) {
    const double distance = static_cast<double>(widen(x[c])) - mean;
    sum += distance * distance;
  }
  return sum / static_cast<double>(C);
}

/// bias may be null.
template <class S>
void normalize(const S* x, Wide<S> mean, Wide<S> rstd, const S* weight, const S* bias, S* y, int64_t C) {
  if (bias) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c)
      y[c] = convert<S>((widen(x[c]) - mean) * rstd * widen(weight[c]) + widen(bias[c]));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) y[c] = convert<S>((widen(x[c]) - mean) * rstd * widen(weight[c]));
  }
}

/// Means over c of dy[c] * w[c], and of that times the normalised x.
struct Projections {
  double constant, linear;
};

template <class S>
Projections projections_of(const S* dy, const S* w, const S* x, Wide<S> mean, Wide<S> rstd, int64_t C) {
  double constant = 0, linear = 0;
#pragma omp simd reduction(+ : constant, linear)
  for (int64_t c = 0; c < C; ++c) {
    const auto g = static_cast<double>(widen(dy[c]) * widen(w[c]));
    constant += g;
    linear += g * static_cast<double>((widen(x[c]) - mean) * rstd);
  }
  return {constant / static_cast<double>(C), linear / static_cast<double>(C)};
}

/// dx = dresidual + rstd * (dy * w - mean(dy * w) - xn * mean(dy * w * xn)), row by row, xn = (x - mean)
/// rstd.
template <class S>
void backward_input(Context& context, Tensor x, Tensor w, Tensor mean, Tensor rstd, Tensor dy,
                    Tensor dresidual, Tensor dx) {
  using T = Wide<S>;
  const S* weight = w.as<S>();
  const int64_t C = x.columns();
  parallel_rows(context.threads, x.rows(), C, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const S* in = x.as<S>() + n * x.row_stride;
      const S* dout = dy.as<S>() + n * dy.row_stride;
      const S* residual = dresidual ? dresidual.as<S>() + n * dresidual.row_stride : nullptr;
      S* din = dx.as<S>() + n * dx.row_stride;
      const T m = mean.as<T>()[n], r = rstd.as<T>()[n];
      const Projections sums = projections_of(dout, weight, in, m, r, C);
      const T constant = static_cast<T>(sums.constant), linear = static_cast<T>(sums.linear);
      const auto gradient = [=](int64_t c) {
        return r * (widen(dout[c]) * widen(weight[c]) - constant - (widen(in[c]) - m) * r * linear);
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

template <class G>
void add_sums(const double* sums, int64_t count, G* to) {
  for (int64_t c = 0; c < count; ++c) to[c] = convert<G>(static_cast<double>(widen(to[c])) + sums[c]);
}

/// dw[c] += sum over rows of dy * (x - mean) * rstd, db[c] += that of dy. Threads share the columns; rows are
/// summed ascending in f64.
template <class S, class G>
void backward_weights(Context& context, Tensor x, Tensor mean, Tensor rstd, Tensor dy, Tensor dw, Tensor db) {
  using T = Wide<S>;
  constexpr int64_t width = 64;  // columns whose sums stay in the first cache
  const int64_t N = x.rows(), C = x.columns(), blocks = (C + width - 1) / width;
  const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N * width, 1), 1);
  parallel_ranges(context.threads, blocks, grain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * width, count = std::min(width, C - first);
      double weight_sums[width] = {}, bias_sums[width] = {};
      for (int64_t n = 0; n < N; ++n) {
        const S* in = x.as<S>() + n * x.row_stride + first;
        const S* dout = dy.as<S>() + n * dy.row_stride + first;
        const T m = mean.as<T>()[n], r = rstd.as<T>()[n];
#pragma omp simd
        for (int64_t c = 0; c < count; ++c) {
          weight_sums[c] += static_cast<double>(widen(dout[c]) * ((widen(in[c]) - m) * r));
          bias_sums[c] += static_cast<double>(widen(dout[c]));
        }
      }
      add_sums(weight_sums, count, dw.as<G>() + first);
      if (db) add_sums(bias_sums, count, db.as<G>() + first);
    }
  });
}

}  // namespace

void layernorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor b, Tensor sum, Tensor y,
                       Tensor mean, Tensor rstd, double eps) {
  with_storage(y.dtype, [&]<class S>() {
    using T = Wide<S>;
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
        const double center = mean_of(in, C);
        const T m = static_cast<T>(center);
        const T r = static_cast<T>(1 / std::sqrt(variance_of(in, center, C) + eps));
        mean.as<T>()[n] = m;
        rstd.as<T>()[n] = r;
        normalize(in, m, r, w.as<S>(), b ? b.as<S>() : nullptr, y.as<S>() + n * y.row_stride, C);
      }
    });
  });
}

void layernorm_backward(Context& context, Tensor x, Tensor w, Tensor mean, Tensor rstd, Tensor dy,
                        Tensor dresidual, Tensor dx, Tensor dw, Tensor db) {
  with_gradient(x.dtype, dw.dtype, [&]<class S, class G>() {
    // First the weights: dx may lie over dy.
    backward_weights<S, G>(context, x, mean, rstd, dy, dw, db);
    backward_input<S>(context, x, w, mean, rstd, dy, dresidual, dx);
  });
}

}  // namespace ptrain::cpu
