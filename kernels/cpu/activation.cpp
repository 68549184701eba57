// SwiGLU on a CPU: one pass over the rows.
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class T>
void forward_row(const T* gate, const T* up, T* y, int64_t F) {
#pragma omp simd
  for (int64_t i = 0; i < F; ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

/// dgate may be gate and dup may be up: every element is read before it is written.
template <class T>
void backward_row(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t F) {
#pragma omp simd
  for (int64_t i = 0; i < F; ++i) {
    const T g = gate[i], u = up[i];
    const T s = sigmoid(g);
    const T silu = g * s;
    dup[i] = dy[i] * silu;
    dgate[i] = dy[i] * u * (s + silu * (T{1} - s));
  }
}

}  // namespace

void swiglu_forward(Context& context, Tensor gate_up, Tensor y) {
  with_float(y.dtype, [&]<class T>() {
    const T* in = gate_up.as<T>();
    T* out = y.as<T>();
    const int64_t F = y.columns();
    parallel_rows(context.threads, y.rows(), F, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* gate = in + n * gate_up.row_stride;
        forward_row(gate, gate + F, out + n * y.row_stride, F);
      }
    });
  });
}

void swiglu_backward(Context& context, Tensor gate_up, Tensor dy, Tensor dgate_up, Tensor y) {
  with_float(dy.dtype, [&]<class T>() {
    const T* in = gate_up.as<T>();
    const T* dout = dy.as<T>();
    T* din = dgate_up.as<T>();
    T* out = y ? y.as<T>() : nullptr;
    const int64_t F = dy.columns();
    parallel_rows(context.threads, dy.rows(), F, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* gate = in + n * gate_up.row_stride;
        T* dgate = din + n * dgate_up.row_stride;
        if (out) forward_row(gate, gate + F, out + n * y.row_stride, F);
        backward_row(gate, gate + F, dout + n * dy.row_stride, dgate, dgate + F, F);
      }
    });
  });
}

}  // namespace ptrain::cpu
