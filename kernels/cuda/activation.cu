// SwiGLU on a GPU, one pass, 16 bytes an access where the addresses allow it. Bytes moved an element of y, of
// s bytes: forward 3s (2 read, 1 written); backward 5s (3 read, 2 written), 6s where y is written again.
#include "kernels/ops/activation.h"

#include <cmath>

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// 1 / (1 + exp(-x)). 16-bit results take the short instructions, whose error their rounding hides.
template <class T>
__device__ inline float sigmoid(float x) {
  if constexpr (sizeof(T) == 2) {
    return __fdividef(1, 1 + __expf(-x));
  } else {
    return 1 / (1 + expf(-x));
  }
}

template <class T, int width>
__device__ inline Vector<T, width> swiglu(const Vector<T, width>& gate, const Vector<T, width>& up) {
  Vector<T, width> y;
  for (int i = 0; i < width; ++i) {
    const float g = to_float(gate.at[i]);
    y.at[i] = from_float<T>(g * sigmoid<T>(g) * to_float(up.at[i]));
  }
  return y;
}

template <class T, int width>
__global__ void forward_kernel(Matrix<const T> gate_up, Matrix<T> y, Runs runs, int64_t F) {
  for_each_run<width>(
      runs,
      [&](int64_t row, int64_t column) -> RunPair<T, width> {
        return {load_run<width>(gate_up, row, column), load_run<width>(gate_up, row, F + column)};
      },
      [&](int64_t row, int64_t column, const RunPair<T, width>& in) {
        store_run<width>(y, row, column, swiglu(in.a, in.b));
      });
}

template <class T, int width>
struct BackwardRuns {
  Vector<T, width> gate, up, dy;
};

/// y.data may be null.
template <class T, int width>
__global__ void backward_kernel(Matrix<const T> gate_up, Matrix<const T> dy, Matrix<T> dgate_up, Matrix<T> y,
                                Runs runs, int64_t F) {
  for_each_run<width>(
      runs,
      [&](int64_t row, int64_t column) -> BackwardRuns<T, width> {
        return {load_run<width>(gate_up, row, column), load_run<width>(gate_up, row, F + column),
                load_run<width>(dy, row, column)};
      },
      [&](int64_t row, int64_t column, const BackwardRuns<T, width>& in) {
        if (y.data != nullptr) store_run<width>(y, row, column, swiglu(in.gate, in.up));
        Vector<T, width> dgate, dup;
        for (int i = 0; i < width; ++i) {
          const float g = to_float(in.gate.at[i]), dout = to_float(in.dy.at[i]);
          const float s = sigmoid<T>(g), silu = g * s;
          dup.at[i] = from_float<T>(dout * silu);
          dgate.at[i] = from_float<T>(dout * to_float(in.up.at[i]) * (s + silu * (1 - s)));
        }
        store_run<width>(dgate_up, row, column, dgate);
        store_run<width>(dgate_up, row, F + column, dup);
      });
}

/// Whether both halves of each row start where vectors may.
bool has_vectors(Tensor gate_up, int64_t F) {
  return is_vectorizable(gate_up) && F * size_bytes(gate_up.dtype) % 16 == 0;
}

}  // namespace

void swiglu_forward(Context& context, Tensor gate_up, Tensor y) {
  const int64_t N = y.rows(), F = y.columns();
  with_element(y.dtype, [&]<class T>() {
    with_width<T>(has_vectors(gate_up, F) && is_vectorizable(y), [&]<int width>() {
      const Runs runs = runs_of(N, F, width);
      launch(context, forward_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<const T>(gate_up),
             matrix<T>(y), runs, F);
    });
  });
}

void swiglu_backward(Context& context, Tensor gate_up, Tensor dy, Tensor dgate_up, Tensor y) {
  const int64_t N = dy.rows(), F = dy.columns();
  with_element(dy.dtype, [&]<class T>() {
    const bool is_wide = has_vectors(gate_up, F) && has_vectors(dgate_up, F) && is_vectorizable(dy) &&
                         (!y || is_vectorizable(y));
    with_width<T>(is_wide, [&]<int width>() {
      const Runs runs = runs_of(N, F, width);
      launch(context, backward_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<const T>(gate_up),
             matrix<const T>(dy), matrix<T>(dgate_up), matrix<T>(y), runs, F);
    });
  });
}

}  // namespace ptrain::cuda
