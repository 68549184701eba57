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
  const auto cut = [&](Tensor tensor, int strip) { return group.cut(tensor, strip); };
  // 1. Attention's input, all rows, and its heads.
  group.pass(
      kept.h_1, scratch.whole,
      [&](int strip) {
        rmsnorm_forward(context, cut(x, strip), {}, w.norm_1, {}, cut(kept.h_1, strip),
                        cut(kept.rstd_1, strip), env.norm_eps);
      },
      [&](int strip, Tensor h_1) {
        products.forward(context, h_1, w.qkv, w.qkv_bias, cut(kept.qkv, strip));
      });
  // 2. Attention. Rows beyond N are padding of the sequence-parallel cut: it leaves them alone.
  const FusedHeads heads(dims, kept.qkv);
  rope(context, heads.qk, micro.positions, env.cos_sin, dims.D, Rotation::forward);
  attention_forward(context, env.attention, heads.q.row_range(0, dims.N), heads.k.row_range(0, dims.N),
                    heads.v.row_range(0, dims.N), micro.document_start, kept.attention.row_range(0, dims.N),
                    kept.lse);
  RowsUnderWay sums = group.leave(scratch.branch, [&](int strip, Tensor addends) {
    products.forward(context, cut(kept.attention, strip), w.o, {}, addends);
  });
  // 3. Residual and the feed-forward's input, all rows.
  group.pass(
      kept.h_2, scratch.whole,
      [&](int strip) {
        const Tensor branch = sums.wait(strip);
        if (w.o_bias) add_bias(context, branch, w.o_bias);
        rmsnorm_forward(context, cut(x, strip), branch, w.norm_2, cut(kept.x_2, strip), cut(kept.h_2, strip),
                        cut(kept.rstd_2, strip), env.norm_eps);
      },
      [&](int strip, Tensor h_2) {
        products.forward(context, h_2, w.gate_up, w.gate_up_bias, cut(kept.gate_up, strip));
      });
}

}  // namespace

void block_forward(Context& context, const BlockEnv& env, const BlockWeights& w, const MicroInput& micro,
                   Tensor x, BlockActs& kept, StageScratch& scratch, Tensor y) {
  const TensorGroup& group = env.group;
  forward_to_gate(context, env, w, micro, x, kept, scratch);
  RowsUnderWay sums = group.leave(y, [&](int strip, Tensor addends) {
    const Tensor act = group.cut(scratch.act, strip);
    swiglu_forward(context, group.cut(kept.gate_up, strip), act);
    env.products.forward(context, act, w.down, {}, addends);
  });
  for (int strip = 0; strip < group.strips(); ++strip) {
    const Tensor branch = sums.wait(strip);
    if (w.down_bias) add_bias(context, branch, w.down_bias);
    add(context, group.cut(kept.x_2, strip), branch);
  }
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
  const auto cut = [&](Tensor tensor, int strip) { return group.cut(tensor, strip); };
  // What comes from the group has two places: `whole` for what only gradients of weights want, gathered
  // beside other products; `partial` for d, and later for the addends of an input's gradient, summed beside
  // the product of its weight.
  const auto input_sums = [&](Tensor dy, Tensor weight) {
    return group.leave(scratch.branch, [&, dy, weight](int strip, Tensor addends) {
      products.backward_input(context, cut(dy, strip), weight, addends);
    });
  };
  // 1. Down-projection. gate_up becomes its own gradient, the product act is made again beside it.
  if (w.down_bias) linear_backward_bias(context, d, dw.down_bias);
  if (!is_whole) copy(context, d, y);
  const Tensor act = is_whole ? scratch.act : kept.act;
  RowsUnderWay dy = group.enter(d, scratch.partial);
  RowsUnderWay h_2 = is_whole ? group.enter(kept.h_2, scratch.whole) : RowsUnderWay();
  for (int strip = 0; strip < group.strips(); ++strip)
    products.backward_input(context, dy.wait(strip), w.down, cut(scratch.dact, strip));
  swiglu_backward(context, kept.gate_up, scratch.dact, kept.gate_up, act);
  if (is_whole) products.backward_weight(context, dy.wait(), act, dw.down);
  // 2. Gate and up.
  RowsUnderWay sums = input_sums(kept.gate_up, w.gate_up);
  if (w.gate_up_bias) linear_backward_bias(context, kept.gate_up, dw.gate_up_bias);
  if (is_whole) products.backward_weight(context, kept.gate_up, h_2.wait(), dw.gate_up);
  // 3. d becomes the gradient after attention's residual: of x_2, and so of both its summands.
  rmsnorm_backward(context, kept.x_2, w.norm_2, kept.rstd_2, sums.wait(), d, d, dw.norm_2);
  if (!is_whole) copy(context, d, kept.x_2);
  // 4. Output projection and attention. Padding rows of dqkv and dattention must carry no gradient.
  if (w.o_bias) linear_backward_bias(context, d, dw.o_bias);
  dy = group.enter(d, scratch.partial);
  RowsUnderWay h_1 = is_whole ? group.enter(kept.h_1, scratch.whole) : RowsUnderWay();
  for (int strip = 0; strip < group.strips(); ++strip)
    products.backward_input(context, dy.wait(strip), w.o, cut(scratch.dattention, strip));
  if (is_whole) products.backward_weight(context, dy.wait(), kept.attention, dw.o);
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
  if (!is_whole) copy(context, scratch.dqkv, kept.qkv);
  sums = input_sums(scratch.dqkv, w.qkv);
  if (w.qkv_bias) linear_backward_bias(context, scratch.dqkv, dw.qkv_bias);
  if (is_whole) products.backward_weight(context, scratch.dqkv, h_1.wait(), dw.qkv);
  rmsnorm_backward(context, x, w.norm_1, kept.rstd_1, sums.wait(), d, d, dw.norm_1);
}

void block_backward_weights(Context& context, const BlockEnv& env, BlockActs& kept, StageScratch& scratch,
                            Tensor y, BlockWeights& dw) {
  const TensorGroup& group = env.group;
  const Products& products = env.products;
  // Where the input half left it: d of the output in y, d after attention's residual in x_2, the gradients of
  // gate_up and qkv in their own places. Two places for gathered rows take turns: one comes, one is read.
  RowsUnderWay dy = group.enter(y, scratch.partial);
  RowsUnderWay h = group.enter(kept.h_2, scratch.whole);
  products.backward_weight(context, dy.wait(), kept.act, dw.down);
  dy = group.enter(kept.x_2, scratch.partial);
  products.backward_weight(context, kept.gate_up, h.wait(), dw.gate_up);
  h = group.enter(kept.h_1, scratch.whole);
  products.backward_weight(context, dy.wait(), kept.attention, dw.o);
  products.backward_weight(context, kept.qkv, h.wait(), dw.qkv);
}

}  // namespace ptrain
