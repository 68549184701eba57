// One transformer layer: pre-norm attention and gated feed-forward, each around a residual. It reads sizes
// and weights and knows no family by name.
#pragma once

#include "kernels/ops/attention.h"
#include "kernels/ops/context.h"
#include "src/model/activations.h"
#include "src/model/products.h"
#include "src/model/tensor_group.h"

namespace ptrain {

/// What all blocks of a stage share.
struct BlockEnv {
  BlockDims dims;
  double norm_eps = 1e-5;
  Tensor cos_sin;           // (P, D/2, 2)
  AttentionDims attention;  // window of this block
  TensorGroup group;
  Products products;
};

/// x: (local_rows, C) -> y: (local_rows, C); leaves `kept` for backward.
void block_forward(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                   Tensor x, BlockActs& kept, StageScratch& scratch, Tensor y);

/// Makes again what `recompute` left out of `kept`, with the bits of block_forward().
void block_again(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                 Recompute recompute, Tensor x, BlockActs& kept, StageScratch& scratch);

/// d: (local_rows, C), gradient of y, becomes that of x. Gradients of the weights are added to dw.
/// y empty: all of it. Else the input half: gradients of matrices are left to block_backward_weights(), and
/// what it wants lies in `kept` and in y, (local_rows, C), the memory of the block's output.
/// Qi et al.: "Zero bubble pipeline parallelism" (2023).
void block_backward(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                    Tensor x, BlockActs& kept, StageScratch& scratch, Tensor d, BlockWeights& dw,
                    Tensor y = {});

/// The weight half: the same bits as in the whole backward.
void block_backward_weights(Context& context, const BlockEnv& env, BlockActs& kept, StageScratch& scratch,
                            Tensor y, BlockWeights& dw);

}  // namespace ptrain
