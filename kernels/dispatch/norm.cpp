// RMSNorm: checks and the choice of the device.
#include "kernels/ops/norm.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void rmsnorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor sum, Tensor y, Tensor rstd,
                     double eps) {
  constexpr std::string_view op = "rmsnorm_forward";
  const int64_t N = y.rows(), C = y.columns();
  expect_matrix({op, "x", x}, N, C, y.dtype);
  if (delta) {
    expect_matrix({op, "delta", delta}, N, C, y.dtype);
    expect_matrix({op, "sum", sum}, N, C, y.dtype);
  }
  expect_elements({op, "w", w}, C, y.dtype);
  expect_elements({op, "rstd", rstd}, N, wide(y.dtype));
  on_device(
      context, op, [&] { cpu::rmsnorm_forward(context, x, delta, w, sum, y, rstd, eps); },
      [&] { cuda::rmsnorm_forward(context, x, delta, w, sum, y, rstd, eps); });
}

void rmsnorm_backward(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                      Tensor dx, Tensor dw) {
  constexpr std::string_view op = "rmsnorm_backward";
  const int64_t N = x.rows(), C = x.columns();
  expect_elements({op, "w", w}, C, x.dtype);
  expect_gradient({op, "dw", dw}, x.dtype);
  expect_elements({op, "dw", dw}, C, dw.dtype);
  expect_elements({op, "rstd", rstd}, N, wide(x.dtype));
  expect_matrix({op, "dy", dy}, N, C, x.dtype);
  expect_matrix({op, "dx", dx}, N, C, x.dtype);
  if (dresidual) expect_matrix({op, "dresidual", dresidual}, N, C, x.dtype);
  on_device(
      context, op, [&] { cpu::rmsnorm_backward(context, x, w, rstd, dy, dresidual, dx, dw); },
      [&] { cuda::rmsnorm_backward(context, x, w, rstd, dy, dresidual, dx, dw); });
}

}  // namespace ptrain
