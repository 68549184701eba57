// Rotary position embedding: checks and the choice of the device.
#include "kernels/ops/rope.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void rope(Context& context, Tensor x, Tensor positions, Tensor cos_sin, int64_t D, Rotation rotation) {
  constexpr std::string_view op = "rope";
  check(D > 0 && x.columns() % D == 0, "{}: {} columns are no heads of size {}", op, x.columns(), D);
  check(cos_sin.shape.dims() == 3 && cos_sin.shape[2] == 2 && 2 * cos_sin.shape[1] <= D,
        "{}: cos_sin is {}, expected (P, R, 2) with 2 R <= {}", op, to_string(cos_sin.shape), D);
  expect_elements({op, "positions", positions}, x.rows(), DType::i32);
  expect_elements({op, "cos_sin", cos_sin}, cos_sin.numel(), wide(x.dtype));
  on_device(
      context, op, [&] { cpu::rope(context, x, positions, cos_sin, D, rotation); },
      [&] { cuda::rope(context, x, positions, cos_sin, D, rotation); });
}

}  // namespace ptrain
