#include "launch/bench/products.h"

#include "kernels/ops/gemm.h"
#include "kernels/ops/quantize.h"

namespace ptrain::bench {
namespace {

/// One made of 8-bit operands: a (rows, inner) b' (columns, inner), each with its scale.
Call quantized(Context& context, Tensors& tensors, Tensor a, Tensor b, Tensor y, Write write) {
  const OwnedTensor one({1}, DType::f32);
  *one.view.as<float>() = 1;
  const Tensor a_scale = tensors.copy_of(one.view), b_scale = tensors.copy_of(one.view);
  return [=, &context] { linear_quantized(context, a, a_scale, b, b_scale, y, write); };
}

Call quantized_product(Context& context, Tensors& tensors, ProductKind kind, const ProductTypes& types,
                       int64_t N, int64_t C, int64_t O) {
  constexpr DType values = DType::f8_e4m3, gradients = DType::f8_e5m2;
  switch (kind) {
    case ProductKind::forward:
      return quantized(context, tensors, tensors.random({N, C}, values), tensors.random({O, C}, values),
                       tensors.zeros({N, O}, types.result), Write::overwrite);
    case ProductKind::input_gradient:
      return quantized(context, tensors, tensors.random({N, O}, gradients), tensors.random({C, O}, values),
                       tensors.zeros({N, C}, types.result), Write::overwrite);
    case ProductKind::weight_gradient:
      return quantized(context, tensors, tensors.random({O, N}, gradients), tensors.random({C, N}, values),
                       tensors.zeros({O, C}, types.weight_gradient), Write::accumulate);
  }
  fail(ExitCode::defect, "no product {}", static_cast<int>(kind));
}

Call plain_product(Context& context, Tensors& tensors, ProductKind kind, const ProductTypes& types, int64_t N,
                   int64_t C, int64_t O) {
  switch (kind) {
    case ProductKind::forward: {
      const Tensor x = tensors.random({N, C}, types.operands), w = tensors.random({O, C}, types.operands);
      const Tensor y = tensors.zeros({N, O}, types.result);
      return [=, &context] { linear_forward(context, x, w, {}, y); };
    }
    case ProductKind::input_gradient: {
      const Tensor dy = tensors.random({N, O}, types.operands), w = tensors.random({O, C}, types.operands);
      const Tensor dx = tensors.zeros({N, C}, types.result);
      return [=, &context] { linear_backward_input(context, dy, w, dx); };
    }
    case ProductKind::weight_gradient: {
      const Tensor dy = tensors.random({N, O}, types.operands), x = tensors.random({N, C}, types.operands);
      const Tensor dw = tensors.zeros({O, C}, types.weight_gradient);
      return [=, &context] { linear_backward_weight(context, dy, x, dw); };
    }
  }
  fail(ExitCode::defect, "no product {}", static_cast<int>(kind));
}

}  // namespace

ProductTypes product_types(Config::Precision precision) {
  const StateTypes types = state_types(precision);
  return {.operands = precision == Config::Precision::fp8 ? DType::f8_e4m3 : types.param,
          .result = types.param,
          .weight_gradient = types.grad};
}

Prepare product(Context& context, ProductKind kind, const ProductTypes& types, int64_t N, int64_t C,
                int64_t O) {
  return [=, &context](Tensors& tensors) {
    return types.operands == DType::f8_e4m3 ? quantized_product(context, tensors, kind, types, N, C, O)
                                            : plain_product(context, tensors, kind, types, N, C, O);
  };
}

ScratchSizes sizes_of_product(int64_t N, int64_t C, int64_t O, DType operands) {
  const bool is_fp8 = operands == DType::f8_e4m3;
  return {.B = 1,
          .T = N,
          .N = N,
          .C = C,
          .F = 0,
          .V = O,
          .dtype = is_fp8 ? DType::bf16 : operands,
          .is_fp8 = is_fp8};
}

}  // namespace ptrain::bench
