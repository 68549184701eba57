#include "src/model/block.h"

#include "kernels/ops/activation.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"

namespace ptrain {
namespace {

/// Column views of a fused (rows, (H + 2K) D) tensor.
struct FusedHeads {
  FusedHeads(const BlockDims& dims, Tensor fused)
      : qk(fused.column_range(0, (dims.local.H + dims.local.K) * dims.D)),
        q(fused.column_range(0, dims.local.H * dims.D)),
        k(fused.column_range(dims.local.H * dims.D, dims.local.K * dims.D)),
        v(fused.column_range((dims.local.H + dims.local.K) * dims.D, dims.local.K * dims.D)) {}

  Tensor qk, q, k, v;
};

/// Everything of forward that backward reads: up to the product before the gate.
void forward_to_gate(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                     Tensor x, BlockActs& kept, StageScratch& scratch) {
  const BlockDims& dims = env.dims;
  const TensorGroup& group = env.group;
  const Products& products = env.products;
  // 1. Attention's input, all rows.
  rmsnorm_forward(context, x, {}, w.norm_1, {}, kept.h_1, kept.rstd_1, env.norm_eps);
  const Tensor h_1 = group.enter(kept.h_1, scratch.whole);
  // 2. Heads. Rows beyond N are padding of the sequence-parallel cut: attention leaves them alone.
  products.forward(context, h_1, w.qkv, w.qkv_bias, kept.qkv);
  const FusedHeads heads(dims, kept.qkv);
  rope(context, heads.qk, micro.positions, env.cos_sin, dims.D, Rotation::forward);
  attention_forward(context, env.attention, heads.q.row_range(0, dims.N), heads.k.row_range(0, dims.N),
                    heads.v.row_range(0, dims.N), micro.document_start, kept.attention.row_range(0, dims.N),
                    kept.lse);
  products.forward(context, kept.attention, w.o, {}, group.addends(scratch.branch));
  group.leave(scratch.branch);
  if (w.o_bias) add_bias(context, scratch.branch, w.o_bias);
  // 3. Residual and the feed-forward's input, all rows.
  rmsnorm_forward(context, x, scratch.branch, w.norm_2, kept.x_2, kept.h_2, kept.rstd_2, env.norm_eps);
  const Tensor h_2 = group.enter(kept.h_2, scratch.whole);
  products.forward(context, h_2, w.gate_up, w.gate_up_bias, kept.gate_up);
}

}  // namespace

void block_forward(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                   Tensor x, BlockActs& kept, StageScratch& scratch, Tensor y) {
  const TensorGroup& group = env.group;
  forward_to_gate(context, env, w, micro, x, kept, scratch);
  swiglu_forward(context, kept.gate_up, scratch.act);
  env.products.forward(context, scratch.act, w.down, {}, group.addends(y));
  group.leave(y);
  if (w.down_bias) add_bias(context, y, w.down_bias);
  add(context, kept.x_2, y);
}

void block_again(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                 Recompute recompute, Tensor x, BlockActs& kept, StageScratch& scratch) {
  if (recompute == Recompute::full) return forward_to_gate(context, env, w, micro, x, kept, scratch);
  if (recompute == Recompute::none) return;
  rmsnorm_forward(context, x, {}, w.norm_1, {}, kept.h_1, kept.rstd_1, env.norm_eps);
  rmsnorm_forward(context, kept.x_2, {}, w.norm_2, {}, kept.h_2, kept.rstd_2, env.norm_eps);
}

void block_backward(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                    Tensor x, BlockActs& kept, StageScratch& scratch, Tensor d, BlockWeights& dw, Tensor y) {
  const BlockDims& dims = env.dims;
  const TensorGroup& group = env.group;
  const Products& products = env.products;
  const bool is_whole = !y;
  // 1. Down-projection. gate_up becomes its own gradient, the product act is made again beside it.
  if (w.down_bias) linear_backward_bias(context, d, dw.down_bias);
  if (!is_whole) copy(context, d, y);
  const Tensor act = is_whole ? scratch.act : kept.act;
  Tensor dy = group.enter(d, scratch.whole);
  products.backward_input(context, dy, w.down, scratch.dact);
  swiglu_backward(context, kept.gate_up, scratch.dact, kept.gate_up, act);
  if (is_whole) products.backward_weight(context, dy, act, dw.down);
  // 2. Gate and up.
  if (is_whole) {
    const Tensor h_2 = group.enter(kept.h_2, scratch.whole);
    products.backward_weight(context, kept.gate_up, h_2, dw.gate_up);
  }
  if (w.gate_up_bias) linear_backward_bias(context, kept.gate_up, dw.gate_up_bias);
  products.backward_input(context, kept.gate_up, w.gate_up, group.addends(scratch.branch));
  group.leave(scratch.branch);
  // 3. d becomes the gradient after attention's residual: of x_2, and so of both its summands.
  rmsnorm_backward(context, kept.x_2, w.norm_2, kept.rstd_2, scratch.branch, d, d, dw.norm_2);
  if (!is_whole) copy(context, d, kept.x_2);
  // 4. Output projection and attention. Padding rows of dqkv and dattention must carry no gradient.
  if (w.o_bias) linear_backward_bias(context, d, dw.o_bias);
  dy = group.enter(d, scratch.whole);
  products.backward_input(context, dy, w.o, scratch.dattention);
  if (is_whole) products.backward_weight(context, dy, kept.attention, dw.o);
  const FusedHeads heads(dims, kept.qkv);
  const FusedHeads dheads(dims, scratch.dqkv);
  if (dims.rows > dims.N) fill(context, scratch.dqkv.row_range(dims.N, dims.rows - dims.N), 0);
  attention_backward(context, env.attention, heads.q.row_range(0, dims.N), heads.k.row_range(0, dims.N),
                     heads.v.row_range(0, dims.N), micro.document_start, kept.attention.row_range(0, dims.N),
                     kept.lse, scratch.dattention.row_range(0, dims.N), scratch.delta,
                     dheads.q.row_range(0, dims.N), dheads.k.row_range(0, dims.N),
                     dheads.v.row_range(0, dims.N));
  rope(context, dheads.qk, micro.positions, env.cos_sin, dims.D, Rotation::backward);
  // 5. q, k, v.
  if (is_whole) {
    const Tensor h_1 = group.enter(kept.h_1, scratch.whole);
    products.backward_weight(context, scratch.dqkv, h_1, dw.qkv);
  } else {
    copy(context, scratch.dqkv, kept.qkv);
  }
  if (w.qkv_bias) linear_backward_bias(context, scratch.dqkv, dw.qkv_bias);
  products.backward_input(context, scratch.dqkv, w.qkv, group.addends(scratch.branch));
  group.leave(scratch.branch);
  rmsnorm_backward(context, x, w.norm_1, kept.rstd_1, scratch.branch, d, d, dw.norm_1);
}

void block_backward_weights(Context& context, const BlockEnv& env, BlockActs& kept, StageScratch& scratch,
                            Tensor y, BlockWeights& dw) {
  const TensorGroup& group = env.group;
  const Products& products = env.products;
  // Where the input half left it: d of the output in y, d after attention's residual in x_2, the gradients of
  // gate_up and qkv in their own places.
  Tensor dy = group.enter(y, scratch.whole);
  products.backward_weight(context, dy, kept.act, dw.down);
  const Tensor h_2 = group.enter(kept.h_2, scratch.whole);
  products.backward_weight(context, kept.gate_up, h_2, dw.gate_up);
  dy = group.enter(kept.x_2, scratch.whole);
  products.backward_weight(context, dy, kept.attention, dw.o);
  const Tensor h_1 = group.enter(kept.h_1, scratch.whole);
  products.backward_weight(context, kept.qkv, h_1, dw.qkv);
}

}  // namespace ptrain
