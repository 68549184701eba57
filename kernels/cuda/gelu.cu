// GELU on a GPU, one pass, 16 bytes an access where the addresses allow it. Bytes moved an element of s
// bytes: forward 2s, backward 3s.
#include "kernels/ops/gelu.h"

#include <cmath>

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"
#include "kernels/ops/normal_tail.h"

namespace ptrain::cuda {
namespace {

/// 16-bit results take the short instructions, whose error their rounding hides.
template <class T>
__device__ inline float exponential(float x) {
  if constexpr (sizeof(T) == 2) {
    return __expf(x);
  } else {
    return expf(x);
  }
}
template <class T>
__device__ inline float reciprocal(float x) {
  if constexpr (sizeof(T) == 2) {
    return __fdividef(1, x);
  } else {
    return 1 / x;
  }
}

/// What x is multiplied with, and its derivative by x.
struct Gate {
  float value, slope;
};

/// Beyond 16 a gate is 0 or 1 to the last bit: bounded, no power of x overflows. NaN stays.
__device__ inline float bounded_below(float x) {
  return x < -16 ? -16 : x;
}
__device__ inline float bounded(float x) {
  const float above = bounded_below(x);
  return above > 16 ? 16 : above;
}

/// c: bounded
template <class T, Gelu kind>
__device__ inline Gate gate_of(float c) {
  if constexpr (kind == Gelu::erf) {
    constexpr float factor = 0.398942280f;  // 1 / sqrt(2 pi)
    const float e = exponential<T>(c * c * -0.5f);
    const float tail = e * normal_tail(reciprocal<T>(1 + tail_slope * fabsf(c)));
    return {c < 0 ? tail : 1 - tail, factor * e};
  } else {
    // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)): from exp(-|2u|) both ends are exact.
    constexpr float linear = 1.59576912f;  // 2 sqrt(2 / pi)
    constexpr float cubic = 0.044715f * linear;
    const float square = c * c, u2 = c * (linear + cubic * square);
    const float e = exponential<T>(u2 < 0 ? u2 : -u2);
    const float most = reciprocal<T>(1 + e), rest = e * most;
    return {u2 < 0 ? rest : most, most * rest * (linear + 3 * cubic * square)};
  }
}

template <class T, int width, Gelu kind>
__global__ void forward_kernel(Matrix<const T> x, Matrix<T> y, Runs runs) {
  for_each_run<width>(
      runs, [&](int64_t row, int64_t column) { return load_run<width>(x, row, column); },
      [&](int64_t row, int64_t column, const Vector<T, width>& in) {
        Vector<T, width> out;
        for (int i = 0; i < width; ++i) {
          const float a = bounded_below(to_float(in.at[i]));
          out.at[i] = from_float<T>(a * gate_of<T, kind>(bounded(a)).value);
        }
        store_run<width>(y, row, column, out);
      });
}

template <class T, int width, Gelu kind>
__global__ void backward_kernel(Matrix<const T> x, Matrix<const T> dy, Matrix<T> dx, Runs runs) {
  for_each_run<width>(
      runs,
      [&](int64_t row, int64_t column) -> RunPair<T, width> {
        return {load_run<width>(x, row, column), load_run<width>(dy, row, column)};
      },
      [&](int64_t row, int64_t column, const RunPair<T, width>& in) {
        Vector<T, width> out;
        for (int i = 0; i < width; ++i) {
          const float c = bounded(to_float(in.a.at[i]));
          const Gate gate = gate_of<T, kind>(c);
          out.at[i] = from_float<T>(to_float(in.b.at[i]) * (gate.value + c * gate.slope));
        }
        store_run<width>(dx, row, column, out);
      });
}

}  // namespace

void gelu_forward(Context& context, Tensor x, Tensor y, Gelu kind) {
  if (x.is_contiguous() && y.is_contiguous()) x = flattened(x), y = flattened(y);
  with_element(y.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(x) && is_vectorizable(y), [&]<int width>() {
      const Runs runs = runs_of(y.rows(), y.columns(), width);
      launch(context,
             kind == Gelu::erf ? forward_kernel<T, width, Gelu::erf> : forward_kernel<T, width, Gelu::tanh>,
             blocks_of(runs), run_threads, 0, matrix<const T>(x), matrix<T>(y), runs);
    });
  });
}

void gelu_backward(Context& context, Tensor x, Tensor dy, Tensor dx, Gelu kind) {
  if (x.is_contiguous() && dy.is_contiguous() && dx.is_contiguous())
    x = flattened(x), dy = flattened(dy), dx = flattened(dx);
  with_element(dy.dtype, [&]<class T>() {
    const bool is_wide = is_vectorizable(x) && is_vectorizable(dy) && is_vectorizable(dx);
    with_width<T>(is_wide, [&]<int width>() {
      const Runs runs = runs_of(dy.rows(), dy.columns(), width);
      launch(context,
             kind == Gelu::erf ? backward_kernel<T, width, Gelu::erf> : backward_kernel<T, width, Gelu::tanh>,
             blocks_of(runs), run_threads, 0, matrix<const T>(x), matrix<const T>(dy), matrix<T>(dx), runs);
    });
  });
}

}  // namespace ptrain::cuda
