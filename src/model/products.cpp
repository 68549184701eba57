#include "src/model/products.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/base/arena.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/quantize.h"

namespace ptrain {
namespace {

constexpr int64_t scale_bytes = 256;  // of both operands: amax and scale, each on 64 bytes

int64_t widest(const ScratchSizes& sizes) {
  return std::max({sizes.C, 2 * sizes.F, (sizes.H + 2 * sizes.K) * sizes.D});
}

/// Of the larger operand: activations of the widest layer, or its weight.
int64_t operand_bytes(const ScratchSizes& sizes) {
  return arena_bytes(widest(sizes) * std::max({sizes.N, sizes.C, sizes.F, sizes.H * sizes.D}));
}

}  // namespace

int64_t product_scratch_bytes(const ScratchSizes& sizes) {
  return sizes.is_fp8 ? scale_bytes + 2 * operand_bytes(sizes) : 0;
}

std::string objection_to_fp8(const ScratchSizes& sizes, int64_t rows) {
  struct Size {
    const char* name;
    int64_t value;
  };
  for (const Size& size : {Size{"rows of a micro-batch (batch.micro * data.sequence_length)", rows},
                           Size{"channels", sizes.C}, Size{"feed-forward channels of a rank", sizes.F},
                           Size{"attention columns of a rank", sizes.H * sizes.D},
                           Size{"key-value columns of a rank", sizes.K * sizes.D}}) {
    if (size.value % 16 != 0)
      return fmt::format(
          "precision: fp8 multiplies sizes that are multiples of 16, but there are {} {}; use bf16",
          size.value, size.name);
  }
  return {};
}

Products::Products(Tensor scratch) : scratch_(scratch.numel() > 0 ? scratch : Tensor{}) {}

/// x, or its transpose, in 8 bits at one of the two places.
Products::Operand Products::quantized(Context& context, Tensor x, DType dtype, Turned turned,
                                      int place) const {
  const auto number = [&](int index) {
    return Tensor(scratch_.at(64 * index), {1}, DType::f32, scratch_.device);
  };
  const Tensor amax = number(2 * place), scale = number(2 * place + 1);
  const int64_t room = (scratch_.numel() - scale_bytes) / 2;
  check(x.numel() <= room, "an 8-bit operand of {} bytes in {}", x.numel(), room);
  const Shape shape = turned == Turned::yes ? Shape{x.columns(), x.rows()} : Shape{x.rows(), x.columns()};
  const Tensor values(scratch_.at(scale_bytes + place * room), shape, dtype, scratch_.device);
  fill(context, amax, 0);
  update_amax(context, x, amax);
  scale_of_amax(context, amax, dtype, 0, scale);
  quantize(context, x, scale, turned == Turned::no ? values : Tensor{},
           turned == Turned::yes ? values : Tensor{});
  return {values, scale};
}

void Products::forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y) const {
  if (!is_8_bit()) return linear_forward(context, x, w, bias, y);
  const Operand a = quantized(context, x, DType::f8_e4m3, Turned::no, 0);
  const Operand b = quantized(context, w, DType::f8_e4m3, Turned::no, 1);
  linear_quantized(context, a.values, a.scale, b.values, b.scale, y);
  if (bias) add_bias(context, y, bias);
}

void Products::backward_input(Context& context, Tensor dy, Tensor w, Tensor dx) const {
  if (!is_8_bit()) return linear_backward_input(context, dy, w, dx);
  const Operand a = quantized(context, dy, DType::f8_e5m2, Turned::no, 0);
  const Operand b = quantized(context, w, DType::f8_e4m3, Turned::yes, 1);
  linear_quantized(context, a.values, a.scale, b.values, b.scale, dx);
}

void Products::backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw) const {
  if (!is_8_bit()) return linear_backward_weight(context, dy, x, dw);
  const Operand a = quantized(context, dy, DType::f8_e5m2, Turned::yes, 0);
  const Operand b = quantized(context, x, DType::f8_e4m3, Turned::yes, 1);
  linear_quantized(context, a.values, a.scale, b.values, b.scale, dw, Write::accumulate);
}

}  // namespace ptrain
