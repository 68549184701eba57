// Checksums: checks and the choice of the device.
#include "kernels/ops/checksum.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void checksum(Context& context, Tensor x, Tensor sum, uint64_t factor) {
  constexpr std::string_view op = "checksum";
  expect_elements({op, "x", x}, x.numel(), x.dtype);
  expect_elements({op, "sum", sum}, 1, DType::i64);
  on_device(
      context, op, [&] { cpu::checksum(context, x, sum, factor); },
      [&] { cuda::checksum(context, x, sum, factor); });
}

}  // namespace ptrain
