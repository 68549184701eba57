// LayerNorm: checks and the choice of the device.
#include "kernels/ops/layernorm.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void layernorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor b, Tensor sum, Tensor y,
                       Tensor mean, Tensor rstd, double eps) {
  constexpr std::string_view op = "layernorm_forward";
  const int64_t N = y.rows(), C = y.columns();
  expect_matrix({op, "x", x}, N, C, y.dtype);
  if (delta) {
    expect_matrix({op, "delta", delta}, N, C, y.dtype);
    expect_matrix({op, "sum", sum}, N, C, y.dtype);
  }
  expect_elements({op, "w", w}, C, y.dtype);
  if (b) expect_elements({op, "b", b}, C, y.dtype);
  expect_elements({op, "mean", mean}, N, wide(y.dtype));
  expect_elements({op, "rstd", rstd}, N, wide(y.dtype));
  on_device(
      context, op, [&] { cpu::layernorm_forward(context, x, delta, w, b, sum, y, mean, rstd, eps); },
      [&] { cuda::layernorm_forward(context, x, delta, w, b, sum, y, mean, rstd, eps); });
}

void layernorm_backward(Context& context, Tensor x, Tensor w, Tensor mean, Tensor rstd, Tensor dy,
                        Tensor dresidual, Tensor dx, Tensor dw, Tensor db) {
  constexpr std::string_view op = "layernorm_backward";
  const int64_t N = x.rows(), C = x.columns();
  expect_elements({op, "w", w}, C, x.dtype);
  expect_gradient({op, "dw", dw}, x.dtype);
  expect_elements({op, "dw", dw}, C, dw.dtype);
  if (db) expect_elements({op, "db", db}, C, dw.dtype);
  expect_elements({op, "mean", mean}, N, wide(x.dtype));
  expect_elements({op, "rstd", rstd}, N, wide(x.dtype));
  expect_matrix({op, "dy", dy}, N, C, x.dtype);
  expect_matrix({op, "dx", dx}, N, C, x.dtype);
  if (dresidual) expect_matrix({op, "dresidual", dresidual}, N, C, x.dtype);
  on_device(
      context, op, [&] { cpu::layernorm_backward(context, x, w, mean, rstd, dy, dresidual, dx, dw, db); },
      [&] { cuda::layernorm_backward(context, x, w, mean, rstd, dy, dresidual, dx, dw, db); });
}

}  // namespace ptrain
