// 8-bit floats: checks and the choice of the device.
#include "kernels/ops/quantize.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {
namespace {

void expect_8_bits(const Operand& x) {
  check(x.tensor.dtype == DType::f8_e4m3 || x.tensor.dtype == DType::f8_e5m2,
        "{}: {} is {}, expected f8_e4m3 or f8_e5m2", x.op, x.name, name_of(x.tensor.dtype));
}

}  // namespace

void update_amax(Context& context, Tensor x, Tensor amax) {
  expect_elements({"update_amax", "amax", amax}, 1, DType::f32);
  on_device(
      context, "update_amax", [&] { cpu::update_amax(context, x, amax); },
      [&] { cuda::update_amax(context, x, amax); });
}

void scale_of_amax(Context& context, Tensor amax, DType dtype, int margin, Tensor scale) {
  constexpr std::string_view op = "scale_of_amax";
  check(dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2, "{}: {} has no such scale", op, name_of(dtype));
  expect_elements({op, "amax", amax}, 1, DType::f32);
  expect_elements({op, "scale", scale}, 1, DType::f32);
  on_device(
      context, op, [&] { cpu::scale_of_amax(context, amax, dtype, margin, scale); },
      [&] { cuda::scale_of_amax(context, amax, dtype, margin, scale); });
}

void quantize(Context& context, Tensor x, Tensor scale, Tensor y, Tensor y_t) {
  constexpr std::string_view op = "quantize";
  expect_elements({op, "scale", scale}, 1, DType::f32);
  check(y || y_t, "quantize: nothing to write");
  check(!y || !y_t || y.dtype == y_t.dtype, "quantize: y is {}, its transpose {}", name_of(y.dtype),
        name_of(y_t.dtype));
  if (y) {
    expect_8_bits({op, "y", y});
    expect_matrix({op, "y", y}, x.rows(), x.columns(), y.dtype);
  }
  if (y_t) {
    expect_8_bits({op, "y_t", y_t});
    expect_matrix({op, "y_t", y_t}, x.columns(), x.rows(), y_t.dtype);
  }
  on_device(
      context, op, [&] { cpu::quantize(context, x, scale, y, y_t); },
      [&] { cuda::quantize(context, x, scale, y, y_t); });
}

void linear_quantized(Context& context, Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, Tensor y,
                      Write write) {
  constexpr std::string_view op = "linear_quantized";
  expect_8_bits({op, "a", a});
  expect_8_bits({op, "b", b});
  expect_matrix({op, "a", a}, y.rows(), b.columns(), a.dtype);
  expect_matrix({op, "b", b}, y.columns(), a.columns(), b.dtype);
  check(y.dtype == DType::f32 || size_bytes(y.dtype) == 2, "{}: y is {}, expected f32, bf16 or f16", op,
        name_of(y.dtype));
  expect_matrix({op, "y", y}, y.rows(), y.columns(), y.dtype);
  expect_elements({op, "a_scale", a_scale}, 1, DType::f32);
  expect_elements({op, "b_scale", b_scale}, 1, DType::f32);
  on_device(
      context, op, [&] { cpu::linear_quantized(context, a, a_scale, b, b_scale, y, write); },
      [&] { cuda::linear_quantized(context, a, a_scale, b, b_scale, y, write); });
}

}  // namespace ptrain
