// The optimizer's arithmetic. Loshchilov, Hutter: "Decoupled weight decay regularization" (2019).
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0;    // 0 for tensors that do not decay
  int64_t update = 1;         // counts updates from 1, for the bias correction
  double gradient_scale = 1;  // multiplies the gradient first: the clip factor
};

/// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w (1 - lr wd) - lr mhat / (sqrt(vhat) + eps).
/// weight, gradient, m, v: contiguous, equal sizes, f32 (or all f64).
void adamw(Context& context, const AdamWStep& step, Tensor weight, Tensor gradient, Tensor m, Tensor v);

}  // namespace ptrain
