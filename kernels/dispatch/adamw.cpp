// The optimizer's arithmetic: checks and the choice of the device.
#include "kernels/ops/adamw.h"

#include "kernels/cpu/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void adamw(Context& context, const AdamWStep& step, Tensor weight, Tensor gradient, Tensor m, Tensor v) {
  constexpr std::string_view op = "adamw";
  check(step.update >= 1, "adamw: updates count from 1, got {}", step.update);
  expect_elements({op, "weight", weight}, weight.numel(), weight.dtype);
  expect_elements({op, "gradient", gradient}, weight.numel(), weight.dtype);
  expect_elements({op, "m", m}, weight.numel(), weight.dtype);
  expect_elements({op, "v", v}, weight.numel(), weight.dtype);
  on_device(context, op, [&] { cpu::adamw(context, step, weight, gradient, m, v); });
}

}  // namespace ptrain
