// Cross-entropy: checks and the choice of the device.
#include "kernels/ops/loss.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void loss_statistics(Context& context, Tensor logits, Tensor targets, int64_t first_id, Tensor statistics) {
  constexpr std::string_view op = "loss_statistics";
  expect_elements({op, "targets", targets}, logits.rows(), DType::i32);
  expect_matrix({op, "statistics", statistics}, logits.rows(), 3, wide(logits.dtype));
  on_device(
      context, op, [&] { cpu::loss_statistics(context, logits, targets, first_id, statistics); },
      [&] { cuda::loss_statistics(context, logits, targets, first_id, statistics); });
}

void loss_combine(Context& context, Tensor parts, Tensor statistics) {
  constexpr std::string_view op = "loss_combine";
  check(parts.shape.dims() == 3, "{}: parts are {}, expected (P, R, 3)", op, to_string(parts.shape));
  expect_elements({op, "parts", parts}, parts.shape[0] * statistics.rows() * 3, statistics.dtype);
  expect_matrix({op, "statistics", statistics}, statistics.rows(), 3, parts.dtype);
  on_device(
      context, op, [&] { cpu::loss_combine(context, parts, statistics); },
      [&] { cuda::loss_combine(context, parts, statistics); });
}

void loss_sum(Context& context, Tensor statistics, Tensor sum) {
  constexpr std::string_view op = "loss_sum";
  expect_matrix({op, "statistics", statistics}, statistics.rows(), 3, statistics.dtype);
  expect_elements({op, "sum", sum}, 1, DType::f64);
  on_device(
      context, op, [&] { cpu::loss_sum(context, statistics, sum); },
      [&] { cuda::loss_sum(context, statistics, sum); });
}

void loss_backward(Context& context, Tensor logits, Tensor statistics, Tensor targets, int64_t first_id,
                   double scale) {
  constexpr std::string_view op = "loss_backward";
  expect_elements({op, "targets", targets}, logits.rows(), DType::i32);
  expect_matrix({op, "statistics", statistics}, logits.rows(), 3, wide(logits.dtype));
  on_device(
      context, op, [&] { cpu::loss_backward(context, logits, statistics, targets, first_id, scale); },
      [&] { cuda::loss_backward(context, logits, statistics, targets, first_id, scale); });
}

}  // namespace ptrain
