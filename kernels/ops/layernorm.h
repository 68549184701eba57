// LayerNorm and the residual addition before it. Ba, Kiros, Hinton: "Layer normalization" (2016). Not
// RMSNorm: see norm.h. Letters: N rows, C channels.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// sum = x + delta (delta may be empty: then sum is not written and x is taken);
/// y = (sum - mean) * rstd * w + b, row by row, rstd = 1 / sqrt(mean of (sum - mean)^2 + eps).
/// x, delta, sum, y: (N, C), sum may be x   w: (C)   b: (C) or empty: nothing is added
/// mean, rstd: (N) f32 (f64 for f64), kept for backward
void layernorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor b, Tensor sum, Tensor y,
                       Tensor mean, Tensor rstd, double eps);

/// dx = dresidual + gradient through the norm;  dw, db += their gradients, summed over rows in a fixed order.
/// x: the summed input of forward.   dresidual: (N, C) or empty; dx may be dresidual or dy.
/// dw: (C) of the dtype of w, or f32   db: the same, or empty where the norm has no bias
void layernorm_backward(Context& context, Tensor x, Tensor w, Tensor mean, Tensor rstd, Tensor dy,
                        Tensor dresidual, Tensor dx, Tensor dw, Tensor db);

}  // namespace ptrain
