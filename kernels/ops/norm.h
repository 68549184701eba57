// RMSNorm and the residual addition before it. Zhang, Sennrich: "Root Mean Square Layer Normalization"
// (2019). Letters: N rows, C channels.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// sum = x + delta (delta may be empty: then sum is not written and x is taken);   y = sum / rms(sum) * w,
/// row by row, rms = sqrt(mean of squares + eps), the mean in f64.
/// x, delta, sum, y: (N, C), sum may be x   w: (C)   rstd: (N) f32 (f64 for f64), 1 / rms, kept for backward
void rmsnorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor sum, Tensor y, Tensor rstd,
                     double eps);

/// dx = dresidual + gradient through the norm;  dw += its gradient, summed over rows in a fixed order.
/// x: the summed input of forward.   dresidual: (N, C) or empty; dx may be dresidual or dy.
/// dw: (C) of the dtype of w, or f32
void rmsnorm_backward(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                      Tensor dx, Tensor dw);

}  // namespace ptrain
