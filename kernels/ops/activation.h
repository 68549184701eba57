// Gated activations of the feed-forward part. Letters: N rows, F feed-forward channels.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// y = silu(gate) * up.   gate_up: (N, 2F), gate in the first F columns   y: (N, F)
/// Shazeer: "GLU variants improve transformer" (2020).
void swiglu_forward(Context& context, Tensor gate_up, Tensor y);

/// dgate_up from dy and what forward read; dgate_up may be gate_up itself.
/// If y is not empty it is written with forward's result again (recomputed from gate_up before that is
/// overwritten).
void swiglu_backward(Context& context, Tensor gate_up, Tensor dy, Tensor dgate_up, Tensor y);

}  // namespace ptrain
