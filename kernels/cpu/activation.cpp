// SwiGLU on a CPU: one pass over the rows.
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class S>
void forward_row(const S* gate, const S* up, S* y, int64_t F) {
#pragma omp simd
  for (int64_t i = 0; i < F; ++i) {
    const auto g = widen(gate[i]);
    y[i] = convert<S>(g * sigmoid(g) * widen(up[i]));
  }
}

/// dgate may be gate and dup may be up: every element is read before it is written.
template <class S>
void backward_row(const S* gate, const S* up, const S* dy, S* dgate, S* dup, int64_t F) {
  using T = Wide<S>;
#pragma omp simd
  for (int64_t i = 0; i < F; ++i) {
    const T g = widen(gate[i]), u = widen(up[i]), dout = widen(dy[i]);
    const T s = sigmoid(g);
    const T silu = g * s;
    dup[i] = convert<S>(dout * silu);
    dgate[i] = convert<S>(dout * u * (s + silu * (T{1} - s)));
  }
}

}  // namespace

void swiglu_forward(Context& context, Tensor gate_up, Tensor y) {
  with_storage(y.dtype, [&]<class S>() {
    const S* in = gate_up.as<S>();
    S* out = y.as<S>();
    const int64_t F = y.columns();
    parallel_rows(context.threads, y.rows(), F, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const S* gate = in + n * gate_up.row_stride;
        forward_row(gate, gate + F, out + n * y.row_stride, F);
      }
    });
  });
}

void swiglu_backward(Context& context, Tensor gate_up, Tensor dy, Tensor dgate_up, Tensor y) {
  with_storage(dy.dtype, [&]<class S>() {
    const S* in = gate_up.as<S>();
    const S* dout = dy.as<S>();
    S* din = dgate_up.as<S>();
    S* out = y ? y.as<S>() : nullptr;
    const int64_t F = dy.columns();
    parallel_rows(context.threads, dy.rows(), F, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const S* gate = in + n * gate_up.row_stride;
        S* dgate = din + n * dgate_up.row_stride;
        if (out) forward_row(gate, gate + F, out + n * y.row_stride, F);
        backward_row(gate, gate + F, dout + n * dy.row_stride, dgate, dgate + F, F);
      }
    });
  });
}

}  // namespace ptrain::cpu
