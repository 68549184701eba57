// The end of the model: final norm, LM head and cross-entropy, computed in chunks of the supervised rows
// alone. Forward and backward are one pass, so that the logits of a chunk live no longer than the chunk.
#pragma once

#include <functional>

#include "kernels/ops/context.h"
#include "src/model/activations.h"
#include "src/model/tensor_group.h"

namespace ptrain {

struct HeadEnv {
  BlockDims dims;
  double norm_eps = 1e-5;
  TensorGroup group;
};

struct HeadWeights {
  Tensor norm;   // (C)
  Tensor table;  // (V, C)
};

/// Adds the negative log-likelihoods of the micro-batch's supervised rows, in nats, to scratch.loss; no
/// gradient.
void head_loss(Context& context, const HeadEnv& env, const HeadWeights& w, const MicroInput& input, Tensor x,
               HeadScratch& scratch);

/// The same, and the gradient of loss_scale * that sum: of x into d, of the weights added to dw.   x, d:
/// (local_rows, C)
void head_loss_and_gradient(Context& context, const HeadEnv& env, const HeadWeights& w,
                            const MicroInput& input, Tensor x, HeadScratch& scratch, double loss_scale,
                            Tensor d, HeadWeights& dw);

/// Calls `each(first row, logits)` for all N rows in chunks.   logits: (rows of the chunk, V), this rank's
/// vocabulary
void head_logits(Context& context, const HeadEnv& env, const HeadWeights& w, Tensor x, HeadScratch& scratch,
                 const std::function<void(int64_t first_row, Tensor logits)>& each);

}  // namespace ptrain
