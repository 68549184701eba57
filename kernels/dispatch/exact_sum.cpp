// Sums of squares in integers: checks and the choice of the device.
#include "kernels/ops/exact_sum.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void exact_sum_of_squares(Context& context, Tensor x, Tensor bins, Write write) {
  constexpr std::string_view op = "exact_sum_of_squares";
  check(x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16,
        "{}: x is {}, expected f32, bf16 or f16", op, name_of(x.dtype));
  expect_elements({op, "x", x}, x.numel(), x.dtype);
  expect_elements({op, "bins", bins}, 2 * exact_bins, DType::i64);
  on_device(
      context, op, [&] { cpu::exact_sum_of_squares(context, x, bins, write); },
      [&] { cuda::exact_sum_of_squares(context, x, bins, write); });
}

void exact_total(Context& context, Tensor bins, Tensor total) {
  constexpr std::string_view op = "exact_total";
  expect_elements({op, "bins", bins}, 2 * exact_bins, DType::i64);
  expect_elements({op, "total", total}, 1, DType::f64);
  on_device(
      context, op, [&] { cpu::exact_total(context, bins, total); },
      [&] { cuda::exact_total(context, bins, total); });
}

}  // namespace ptrain
