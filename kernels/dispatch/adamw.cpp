// The optimizer's arithmetic: checks and the choice of the device.
#include "kernels/ops/adamw.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void gradient_scale(Context& context, Tensor sums, double clip, double loss_scale, Tensor scale) {
  constexpr std::string_view op = "gradient_scale";
  expect_elements({op, "sums", sums}, 2, DType::f64);
  expect_elements({op, "scale", scale}, 1, DType::f64);
  on_device(
      context, op, [&] { cpu::gradient_scale(context, sums, clip, loss_scale, scale); },
      [&] { cuda::gradient_scale(context, sums, clip, loss_scale, scale); });
}

void adamw(Context& context, const AdamWStep& step, Tensor scale, Tensor weight, Tensor master,
           Tensor gradient, Tensor m, Tensor v) {
  constexpr std::string_view op = "adamw";
  const int64_t count = weight.numel();
  const DType state = wide(weight.dtype);
  check(step.update >= 1, "adamw: updates count from 1, got {}", step.update);
  expect_elements({op, "scale", scale}, 1, DType::f64);
  expect_elements({op, "weight", weight}, count, weight.dtype);
  expect_gradient({op, "gradient", gradient}, weight.dtype);
  expect_elements({op, "gradient", gradient}, count, gradient.dtype);
  expect_elements({op, "m", m}, count, state);
  expect_elements({op, "v", v}, count, state);
  if (master) {
    const bool is_split = master.dtype == DType::i16 && weight.dtype == DType::bf16;
    check(is_split || (master.dtype == DType::f32 && size_bytes(weight.dtype) == 2),
          "adamw: a master of {} for a weight of {}", name_of(master.dtype), name_of(weight.dtype));
    expect_elements({op, "master", master}, count, master.dtype);
  }
  on_device(
      context, op, [&] { cpu::adamw(context, step, scale, weight, master, gradient, m, v); },
      [&] { cuda::adamw(context, step, scale, weight, master, gradient, m, v); });
}

void join_master(Context& context, Tensor weight, Tensor low, Tensor wide) {
  constexpr std::string_view op = "join_master";
  expect_elements({op, "weight", weight}, wide.numel(), DType::bf16);
  expect_elements({op, "wide", wide}, wide.numel(), DType::f32);
  if (low) expect_elements({op, "low", low}, wide.numel(), DType::i16);
  on_device(
      context, op, [&] { cpu::join_master(context, weight, low, wide); },
      [&] { cuda::join_master(context, weight, low, wide); });
}

void split_master(Context& context, Tensor wide, Tensor weight, Tensor low) {
  constexpr std::string_view op = "split_master";
  expect_elements({op, "weight", weight}, wide.numel(), DType::bf16);
  expect_elements({op, "wide", wide}, wide.numel(), DType::f32);
  if (low) expect_elements({op, "low", low}, wide.numel(), DType::i16);
  on_device(
      context, op, [&] { cpu::split_master(context, wide, weight, low); },
      [&] { cuda::split_master(context, wide, weight, low); });
}

}  // namespace ptrain
