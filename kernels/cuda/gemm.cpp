// Linear layers on a GPU as column-major products: each row-major tensor is seen as its transpose, so that y
// = x w' becomes y' = w x'. Knows shapes alone: gemm_plan.h runs them.
#include "kernels/ops/gemm.h"

#include <algorithm>

#include "kernels/cuda/gemm_plan.h"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// An operand as the library sees it: a row is a column there.
struct Operand {
  Tensor tensor;
  bool is_transposed = false;

  /// Elements from one column to the next; at least 1 and the width, also where there is one row alone.
  int64_t stride() const { return std::max<int64_t>(std::max(tensor.row_stride, tensor.columns()), 1); }
};

GemmKey key_of(const Operand& a, const Operand& b, Tensor c, int64_t k, Tensor bias, Write write) {
  const int64_t c_stride = Operand{c}.stride();
  return {.a = a.tensor.dtype,
          .b = b.tensor.dtype,
          .c = c.dtype,
          .is_a_transposed = a.is_transposed,
          .is_b_transposed = b.is_transposed,
          .m = c.columns(),
          .n = c.rows(),
          .k = k,
          .a_stride = a.stride(),
          .b_stride = b.stride(),
          .c_stride = c_stride,
          .a_alignment = alignment_of(a.tensor.data),
          .b_alignment = alignment_of(b.tensor.data),
          .c_alignment = alignment_of(c.data),
          .has_bias = static_cast<bool>(bias),
          .accumulates = write == Write::accumulate};
}

/// c = a b (+ bias), with sums over k.
void multiply(Context& context, const Operand& a, const Operand& b, Tensor c, int64_t k, Tensor bias,
              Write write) {
  if (c.rows() == 0 || c.columns() == 0) return;
  run_product(context, key_of(a, b, c, k, bias, write),
              {.a = a.tensor.data, .b = b.tensor.data, .c = c.data, .bias = bias.data});
}

void expect_16(std::string_view what, int64_t value) {
  check(value % 16 == 0, ExitCode::usage,
        "products of 8-bit floats want multiples of 16, but {} is {}: choose another model or batch size, or "
        "precision: bf16",
        what, value);
}

void expect_operand_of_8_bits(std::string_view name, Tensor x) {
  expect_16(fmt::format("the width of {}", name), x.columns());
  expect_16(fmt::format("the row stride of {}", name), x.row_stride);
  expect_16(fmt::format("the address of {}", name),
            static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.data) % 16));
}

}  // namespace

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write) {
  multiply(context, {w, true}, {x}, y, x.columns(), bias, write);
}

void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write) {
  multiply(context, {w}, {dy}, dx, dy.columns(), {}, write);
}

void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write) {
  if (x.rows() == 0) {
    if (write == Write::overwrite) cuda::fill(context, dw, 0);
    return;
  }
  multiply(context, {x}, {dy, true}, dw, x.rows(), {}, write);
}

void linear_quantized(Context& context, Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, Tensor y,
                      Write write) {
  check(a.dtype == DType::f8_e4m3 || b.dtype == DType::f8_e4m3, ExitCode::usage,
        "a product of two tensors of f8_e5m2 is not there: one of them must be f8_e4m3");
  expect_operand_of_8_bits("a", a);
  expect_operand_of_8_bits("b", b);
  expect_16("the number of outputs", y.columns());
  if (y.rows() == 0) return;
  // The workspace is the scratch's beginning: what stands for the scales lies behind all of it.
  constexpr int64_t inverse_bytes = 2 * size_bytes(DType::f32);
  const int64_t start = gemm_workspace_bytes + 256;
  check(context.scratch.bytes() >= start + inverse_bytes,
        "linear_quantized needs {} bytes of scratch, {} were granted", start + inverse_bytes,
        context.scratch.bytes());
  const Tensor inverses(context.scratch.at(start), {2}, DType::f32, context.device);
  invert_scales(context, a_scale, b_scale, inverses);
  const float* inverse = inverses.as<float>();
  run_product(context, key_of({b, true}, {a}, y, a.columns(), {}, write),
              {.a = b.data, .b = a.data, .c = y.data, .a_factor = inverse + 1, .b_factor = inverse});
}

}  // namespace ptrain::cuda
