// Rotary position embedding. Su et al.: "RoFormer" (2021). Halves of a head are rotated against each other
// (HF's order). Letters: N rows, H heads, D head size, P positions.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

enum class Rotation { forward, backward };  // backward = by the negative angle: the gradient

/// Rotates every head of x in place: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), x1 and x2 the halves of
/// its first 2 * R elements.   x: (N, H*D), may be a column view   positions: (N) i32   cos_sin: (P, R, 2)
/// f32 (f64 for f64)
void rope(Context& context, Tensor x, Tensor positions, Tensor cos_sin, int64_t D, Rotation rotation);

}  // namespace ptrain
