// GELU on a CPU: one pass over the rows.
#include <cmath>
#include <numbers>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"
#include "kernels/ops/normal_tail.h"

namespace ptrain::cpu {
namespace {

/// What x is multiplied with, and its derivative by x.
template <class T>
struct Gate {
  T value, slope;
};

/// Beyond 16 a gate is 0 or 1 to the last bit of f32 and less than 1e-56 from it: bounded, no power of x
/// overflows. NaN stays.
template <class T>
T bounded(T x) {
  const T above = x < T{-16} ? T{-16} : x;
  return above > T{16} ? T{16} : above;
}

/// The probability of a standard normal number above |x|, and e = exp(-x^2 / 2).
inline float tail_of(float x, float e) {
  return e * normal_tail(1 / (1 + tail_slope * std::fabs(x)));
}
inline double tail_of(double x, double) {
  return 0.5 * std::erfc(std::fabs(x) * std::numbers::sqrt2 / 2);
}

template <Gelu kind, class T>
Gate<T> gate_of(T x) {
  const T c = bounded(x);
  if constexpr (kind == Gelu::erf) {
    constexpr T factor = static_cast<T>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    const T e = vector_exp(c * c * T{-0.5});
    const T tail = tail_of(c, e);
    return {c < 0 ? tail : 1 - tail, factor * e};
  } else {
    // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)): from exp(-|2u|) both ends are exact.
    constexpr T linear = static_cast<T>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    constexpr T cubic = static_cast<T>(0.044715) * linear;
    const T square = c * c, u2 = c * (linear + cubic * square);
    const T e = vector_exp(u2 < 0 ? u2 : -u2);
    const T most = 1 / (1 + e), rest = e * most;
    return {u2 < 0 ? rest : most, most * rest * (linear + 3 * cubic * square)};
  }
}

template <Gelu kind, class S>
void forward_row(const S* x, S* y, int64_t F) {
  using T = Wide<S>;
#pragma omp simd
  for (int64_t i = 0; i < F; ++i) {
    const T in = widen(x[i]);
    // Times the bound where the gate is 0: the product is 0 even of minus infinity.
    y[i] = convert<S>((in < T{-16} ? T{-16} : in) * gate_of<kind>(in).value);
  }
}

/// dx may be x or dy: every element is read before it is written.
template <Gelu kind, class S>
void backward_row(const S* x, const S* dy, S* dx, int64_t F) {
  using T = Wide<S>;
#pragma omp simd
  for (int64_t i = 0; i < F; ++i) {
    const T in = widen(x[i]), dout = widen(dy[i]);
    const Gate<T> gate = gate_of<kind>(in);
    dx[i] = convert<S>(dout * (gate.value + bounded(in) * gate.slope));
  }
}

/// Calls body.operator()<kind>().
template <class Body>
void with_kind(Gelu kind, const Body& body) {
  switch (kind) {
    case Gelu::erf:
      return body.template operator()<Gelu::erf>();
    case Gelu::tanh:
      return body.template operator()<Gelu::tanh>();
  }
}

}  // namespace

void gelu_forward(Context& context, Tensor x, Tensor y, Gelu gelu) {
  with_storage(y.dtype, [&]<class S>() {
    with_kind(gelu, [&]<Gelu kind>() {
      const S* in = x.as<S>();
      S* out = y.as<S>();
      const int64_t F = y.columns();
      parallel_rows(context.threads, y.rows(), F, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
          forward_row<kind>(in + n * x.row_stride, out + n * y.row_stride, F);
      });
    });
  });
}

void gelu_backward(Context& context, Tensor x, Tensor dy, Tensor dx, Gelu gelu) {
  with_storage(dy.dtype, [&]<class S>() {
    with_kind(gelu, [&]<Gelu kind>() {
      const S* in = x.as<S>();
      const S* dout = dy.as<S>();
      S* din = dx.as<S>();
      const int64_t F = dy.columns();
      parallel_rows(context.threads, dy.rows(), F, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
          backward_row<kind>(in + n * x.row_stride, dout + n * dy.row_stride, din + n * dx.row_stride, F);
      });
    });
  });
}

}  // namespace ptrain::cpu
