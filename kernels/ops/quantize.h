// 8-bit floats with one scale a tensor, and the product of two such tensors. Micikevicius et al.: "FP8
// formats for deep learning" (2022): E4M3 (largest 448) for weights and activations, E5M2 (largest 57344) for
// gradients. Letters: N rows, C inputs, O outputs.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// Largest finite value of an 8-bit float.
constexpr double largest_of(DType dtype) {
  return dtype == DType::f8_e4m3 ? 448.0 : 57344.0;
}

/// amax = max(amax, largest |x|).   x: (N, C), may be a column view   amax: (1) f32
void update_amax(Context& context, Tensor x, Tensor amax);

/// scale = largest_of(dtype) / amax / 2^margin, 1 where amax is 0 or not finite.   amax, scale: (1) f32
void scale_of_amax(Context& context, Tensor amax, DType dtype, int margin, Tensor scale);

/// y = x * scale, to nearest even and saturated at the largest finite value; y_t is its transpose. Either of
/// y and y_t may be empty.   x: (N, C), may be a column view   y: (N, C)   y_t: (C, N)   scale: (1) f32
void quantize(Context& context, Tensor x, Tensor scale, Tensor y, Tensor y_t);

/// y = a b' / (a_scale * b_scale) (Write::accumulate: y += …), sums in f32; a GPU may keep those of two E4M3
/// operands, which are forward's, in its tensor cores' shorter form.
/// a: (N, C) 8-bit   b: (O, C) 8-bit   a_scale, b_scale: (1) f32   y: (N, O) f32, bf16 or f16
/// Errors (usage): on a GPU without 8-bit products, and where C or O is not a multiple of 16.
void linear_quantized(Context& context, Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, Tensor y,
                      Write write = Write::overwrite);

}  // namespace ptrain
