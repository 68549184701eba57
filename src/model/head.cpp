#include "src/model/head.h"

#include <algorithm>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/loss.h"
#include "kernels/ops/norm.h"

namespace ptrain {
namespace {

/// Every shape of a product is a choice among algorithms that a GPU's library makes once: there the rows of a
/// chunk are filled up with zeros to a few sizes, which add nothing to any sum.
int64_t product_rows(int64_t count, int64_t capacity, Device device) {
  constexpr int64_t step = 128;
  return device.kind == DeviceKind::cpu ? count : std::min(capacity, (count + step - 1) / step * step);
}

/// A chunk of supervised rows and its tensors, cut to `count` rows; those of the products may have a few
/// more.
struct Chunk {
  Chunk(const MicroInput& input, HeadScratch& scratch, int64_t begin, int64_t count, const BlockDims& dims)
      : rows(Tensor(input.supervised.at(begin), {count}, DType::i32, input.supervised.device)),
        targets(Tensor(input.targets.at(begin), {count}, DType::i32, input.targets.device)),
        product_inputs(scratch.selected.row_range(
            0, product_rows(count, scratch.selected.rows(), scratch.selected.device))),
        product_logits(scratch.logits.row_range(0, product_inputs.rows())),
        selected(scratch.selected.row_range(0, count)),
        logits(scratch.logits.row_range(0, count)),
        statistics(scratch.statistics.row_range(0, count)),
        parts(scratch.parts.data, {dims.tensor, count, 3}, scratch.parts.dtype, scratch.parts.device) {}

  Tensor rows, targets, product_inputs, product_logits, selected, logits, statistics, parts;
};

/// Logits of the chunk, their statistics over the whole vocabulary, and the loss.
void chunk_loss(Context& context, const HeadEnv& env, const HeadWeights& w, Tensor h, Chunk& chunk,
                Tensor loss) {
  gather_rows(context, h, chunk.rows, chunk.selected);
  const int64_t count = chunk.selected.rows(), more = chunk.product_inputs.rows() - count;
  if (more > 0) fill(context, chunk.product_inputs.row_range(count, more), 0);
  linear_forward(context, chunk.product_inputs, w.table, {}, chunk.product_logits);
  loss_statistics(context, chunk.logits, chunk.targets, env.dims.local.first_id, chunk.statistics);
  if (env.group.size() > 1) {
    env.group.all_gather(chunk.statistics, chunk.parts);
    loss_combine(context, chunk.parts, chunk.statistics);
  }
  loss_sum(context, chunk.statistics, loss);
}

/// Calls `each` with consecutive chunks of the supervised rows.
template <class Each>
void over_chunks(const HeadEnv& env, const MicroInput& input, HeadScratch& scratch, Each each) {
  const int64_t capacity = scratch.selected.rows();
  for (int64_t begin = 0; begin < input.num_supervised; begin += capacity) {
    Chunk chunk(input, scratch, begin, std::min(capacity, input.num_supervised - begin), env.dims);
    each(chunk);
  }
}

}  // namespace

void head_loss(Context& context, const HeadEnv& env, const HeadWeights& w, const MicroInput& input, Tensor x,
               HeadScratch& scratch) {
  rmsnorm_forward(context, x, {}, w.norm, {}, scratch.h, scratch.rstd, env.norm_eps);
  const Tensor h = env.group.enter(scratch.h, scratch.whole).wait();
  over_chunks(env, input, scratch,
              [&](Chunk& chunk) { chunk_loss(context, env, w, h, chunk, scratch.loss); });
}

void head_loss_and_gradient(Context& context, const HeadEnv& env, const HeadWeights& w,
                            const MicroInput& input, Tensor x, HeadScratch& scratch, double loss_scale,
                            Tensor d, HeadWeights& dw) {
  rmsnorm_forward(context, x, {}, w.norm, {}, scratch.h, scratch.rstd, env.norm_eps);
  const Tensor h = env.group.enter(scratch.h, scratch.whole).wait();
  const Tensor dh = env.group.addends(d);
  fill(context, dh, 0);
  over_chunks(env, input, scratch, [&](Chunk& chunk) {
    chunk_loss(context, env, w, h, chunk, scratch.loss);
    loss_backward(context, chunk.logits, chunk.statistics, chunk.targets, env.dims.local.first_id,
                  loss_scale);
    linear_backward_weight(context, chunk.product_logits, chunk.product_inputs, dw.table);
    linear_backward_input(context, chunk.product_logits, w.table, chunk.product_inputs);
    scatter_rows(context, chunk.selected, chunk.rows, dh);
  });
  env.group.leave(d);
  rmsnorm_backward(context, x, w.norm, scratch.rstd, d, {}, d, dw.norm);
}

void head_logits(Context& context, const HeadEnv& env, const HeadWeights& w, Tensor x, HeadScratch& scratch,
                 const std::function<void(int64_t first_row, Tensor logits)>& each) {
  rmsnorm_forward(context, x, {}, w.norm, {}, scratch.h, scratch.rstd, env.norm_eps);
  const Tensor h = env.group.enter(scratch.h, scratch.whole).wait();
  for (int64_t begin = 0; begin < env.dims.N; begin += scratch.logits.rows()) {
    const int64_t count = std::min(scratch.logits.rows(), env.dims.N - begin);
    const Tensor logits = scratch.logits.row_range(0, count);
    linear_forward(context, h.row_range(begin, count), w.table, {}, logits);
    each(begin, logits);
  }
}

}  // namespace ptrain
