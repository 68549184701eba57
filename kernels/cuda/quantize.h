// What the product of 8-bit operands asks of the kernels beside it. Not for callers outside of kernels/cuda.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain::cuda {

/// inverses = (1 / a_scale, 1 / b_scale).   a_scale, b_scale: (1) f32   inverses: (2) f32
void invert_scales(Context& context, Tensor a_scale, Tensor b_scale, Tensor inverses);

}  // namespace ptrain::cuda
