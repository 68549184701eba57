// Gated activations: checks and the choice of the device.
#include "kernels/ops/activation.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void swiglu_forward(Context& context, Tensor gate_up, Tensor y) {
  constexpr std::string_view op = "swiglu_forward";
  expect_matrix({op, "gate_up", gate_up}, y.rows(), 2 * y.columns(), y.dtype);
  on_device(
      context, op, [&] { cpu::swiglu_forward(context, gate_up, y); },
      [&] { cuda::swiglu_forward(context, gate_up, y); });
}

void swiglu_backward(Context& context, Tensor gate_up, Tensor dy, Tensor dgate_up, Tensor y) {
  constexpr std::string_view op = "swiglu_backward";
  expect_matrix({op, "gate_up", gate_up}, dy.rows(), 2 * dy.columns(), dy.dtype);
  expect_matrix({op, "dgate_up", dgate_up}, dy.rows(), 2 * dy.columns(), dy.dtype);
  if (y) expect_matrix({op, "y", y}, dy.rows(), dy.columns(), dy.dtype);
  on_device(
      context, op, [&] { cpu::swiglu_backward(context, gate_up, dy, dgate_up, y); },
      [&] { cuda::swiglu_backward(context, gate_up, dy, dgate_up, y); });
}

}  // namespace ptrain
