// The GELU activation. Hendrycks, Gimpel: "Gaussian error linear units (GELUs)" (2016). Not gated
// activations: see activation.h. Letters: N rows, F feed-forward channels.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// Which gate multiplies x.
enum class Gelu {
  erf,   ///< the normal distribution's probability below x, (1 + erf(x / sqrt 2)) / 2
  tanh,  ///< (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: GPT-2's, which checkpoints call gelu_new
};

/// y = x * gate(x); 0 far below 0, minus infinity included; NaN stays NaN.
/// x, y: (N, F), y may be x
void gelu_forward(Context& context, Tensor x, Tensor y, Gelu kind);

/// dx = dy * (gate(x) + x * gate'(x)).   x, dy, dx: (N, F); dx may be x or dy
void gelu_backward(Context& context, Tensor x, Tensor dy, Tensor dx, Gelu kind);

}  // namespace ptrain
