// GELU: checks and the choice of the device.
#include "kernels/ops/gelu.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void gelu_forward(Context& context, Tensor x, Tensor y, Gelu kind) {
  constexpr std::string_view op = "gelu_forward";
  expect_matrix({op, "x", x}, y.rows(), y.columns(), y.dtype);
  on_device(
      context, op, [&] { cpu::gelu_forward(context, x, y, kind); },
      [&] { cuda::gelu_forward(context, x, y, kind); });
}

void gelu_backward(Context& context, Tensor x, Tensor dy, Tensor dx, Gelu kind) {
  constexpr std::string_view op = "gelu_backward";
  expect_matrix({op, "x", x}, dy.rows(), dy.columns(), dy.dtype);
  expect_matrix({op, "dx", dx}, dy.rows(), dy.columns(), dy.dtype);
  on_device(
      context, op, [&] { cpu::gelu_backward(context, x, dy, dx, kind); },
      [&] { cuda::gelu_backward(context, x, dy, dx, kind); });
}

}  // namespace ptrain
