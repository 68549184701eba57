// Linear layers: checks and the choice of the device.
#include "kernels/ops/gemm.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write) {
  constexpr std::string_view op = "linear_forward";
  expect_matrix({op, "x", x}, y.rows(), w.columns(), y.dtype);
  expect_matrix({op, "w", w}, y.columns(), w.columns(), y.dtype);
  expect_matrix({op, "y", y}, y.rows(), y.columns(), y.dtype);
  if (bias) expect_elements({op, "bias", bias}, y.columns(), y.dtype);
  on_device(
      context, op, [&] { cpu::linear_forward(context, x, w, bias, y, write); },
      [&] { cuda::linear_forward(context, x, w, bias, y, write); });
}

void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write) {
  constexpr std::string_view op = "linear_backward_input";
  expect_matrix({op, "dy", dy}, dx.rows(), w.rows(), dx.dtype);
  expect_matrix({op, "w", w}, dy.columns(), dx.columns(), dx.dtype);
  expect_matrix({op, "dx", dx}, dx.rows(), dx.columns(), dx.dtype);
  on_device(
      context, op, [&] { cpu::linear_backward_input(context, dy, w, dx, write); },
      [&] { cuda::linear_backward_input(context, dy, w, dx, write); });
}

void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write) {
  constexpr std::string_view op = "linear_backward_weight";
  expect_gradient({op, "dw", dw}, x.dtype);
  expect_matrix({op, "dy", dy}, x.rows(), dw.rows(), x.dtype);
  expect_matrix({op, "x", x}, dy.rows(), dw.columns(), x.dtype);
  expect_matrix({op, "dw", dw}, dw.rows(), dw.columns(), dw.dtype);
  on_device(
      context, op, [&] { cpu::linear_backward_weight(context, dy, x, dw, write); },
      [&] { cuda::linear_backward_weight(context, dy, x, dw, write); });
}

void linear_backward_bias(Context& context, Tensor dy, Tensor db, Write write) {
  constexpr std::string_view op = "linear_backward_bias";
  expect_gradient({op, "db", db}, dy.dtype);
  expect_elements({op, "db", db}, dy.columns(), db.dtype);
  on_device(
      context, op, [&] { cpu::linear_backward_bias(context, dy, db, write); },
      [&] { cuda::linear_backward_bias(context, dy, db, write); });
}

}  // namespace ptrain
