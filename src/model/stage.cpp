#include "src/model/stage.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops/embedding.h"
#include "parallel/comm/op_ring.h"
#include "src/model/host_flat.h"

namespace ptrain {
namespace {

/// A block's dozen kernels take the host about 50 us to enqueue. Where a fast GPU (400 TFLOP/s) is done with
/// their products in ten times that, the host is in its way.
bool is_bound_by_launches(const ModelSpec& spec, int64_t rows) {
  const auto weights = static_cast<double>(spec.C * spec.D * (2 * spec.H + 2 * spec.K) + 3 * spec.C * spec.F);
  constexpr double flops_of_a_gpu = 400e12, short_s = 500e-6;
  return 2 * weights * static_cast<double>(rows) < short_s * flops_of_a_gpu;
}

}  // namespace

Stage::Stage(const ModelSpec& spec, const Plan& plan, const StagePlan& part, Workspace& workspace)
    : spec_(spec),
      workspace_(workspace),
      units_(part.units),
      bucket_units_(part.bucket_units),
      first_block_unit_(std::max<int64_t>(part.units.begin, 1)) {
  for (int64_t unit = units_.begin; unit < units_.end(); ++unit) {
    if (is_block(unit)) rules_.blocks.push_back(plan.recompute_of(part, unit));
  }
  rules_.has_halves = plan.has_halves();
  slots_.resize(static_cast<size_t>(
      plan.slots.at(static_cast<size_t>(part.position)).at(static_cast<size_t>(part.chunk))));
  // Collectives of a tensor group, and units that come and go, stay outside of graphs.
  is_launch_bound_ = workspace.context.stream != nullptr && plan.mesh.tensor == 1 &&
                     !plan.has_unit_gradients() && is_bound_by_launches(spec, plan.rows);
}

void Stage::visit_slot(size_t slot, const VisitTensor& each) {
  visit(workspace_.dims, rules_, slots_[slot], each);
}

void Stage::bind(const std::vector<PlacedWeight>& placed, const FlatMemory& parameters,
                 const FlatMemory& gradients) {
  const int first_block = static_cast<int>(first_block_unit_) - 1;
  const int blocks = static_cast<int>(rules_.blocks.size());
  weights_ = bind_weights(placed, units_, parameters, first_block, blocks);
  if (!gradients.is_empty()) dweights_ = bind_weights(placed, units_, gradients, first_block, blocks);
  for (SlotActs& slot : slots_) {
    for (size_t block = 0; block < slot.blocks.size(); ++block)
      share(rules_.blocks[block], workspace_.scratch.again, slot.blocks[block]);
  }
}

BlockEnv Stage::block_env(int64_t unit, const MicroInput& input) const {
  const BlockDims& dims = workspace_.dims;
  return {.dims = dims,
          .norm_eps = spec_.norm_eps,
          .cos_sin = workspace_.cos_sin,
          .attention = {.B = dims.B,
                        .T = dims.T,
                        .H = dims.local.H,
                        .K = dims.local.K,
                        .D = dims.D,
                        .group = spec_.H / spec_.K,
                        .first_head = dims.local.first_head,
                        .scale = 1.0 / std::sqrt(static_cast<double>(dims.D)),
                        .window = unit - 1 >= spec_.first_window_layer ? spec_.window : 0,
                        .has_documents = input.has_documents},
          .group = workspace_.group,
          .products = workspace_.products};
}

void Stage::load(int slot, const MicroInput& staging) {
  const Context& context = workspace_.context;
  MicroInput& input = slots_[static_cast<size_t>(slot)].input;
  transfer(context, staging.ids, input.ids);
  transfer(context, staging.positions, input.positions);
  transfer(context, staging.document_start, input.document_start);
  transfer(context, staging.supervised, input.supervised);
  transfer(context, staging.targets, input.targets);
  input.num_supervised = staging.num_supervised;
  input.has_documents = staging.has_documents;
}

/// For who asks what this rank does.
void Stage::note_layer(int64_t unit) const {
  if (workspace_.ops == nullptr) return;
  const auto layer = static_cast<int>(unit - 1);
  workspace_.ops->at_layer(is_block(unit) ? layer : unit == 0 ? embedding_layer : head_layer);
}

/// The unit's weights can be read from now on; those of the next one set out.
void Stage::need(int64_t unit, Range units, bool is_forward) {
  note_layer(unit);
  if (hooks_ == nullptr) return;
  int64_t next = is_forward ? unit + 1 : unit - 1;
  if (next < units.begin || next >= units.end() || (!is_forward && !is_block(next))) next = -1;
  hooks_->need(unit, next);
}

void Stage::need_all(Range units) {
  for (int64_t unit = units.begin; unit < units.end() && hooks_ != nullptr; ++unit) hooks_->need(unit, -1);
}

template <class Work>
void Stage::as_graph(const GraphKey& key, const Work& work) {
  if (!is_launch_bound_) return work();
  // What is recorded must not wait.
  need_all(units_);
  // The first time libraries choose their algorithms; what is recorded the second time is what then runs.
  Captured& captured = graphs_[key];
  if (captured.uses++ == 0) return work();
  if (!captured.graph) captured.graph.capture(*workspace_.context.stream, work);
  captured.graph.launch(*workspace_.context.stream);
}

void Stage::forward_layers(SlotActs& acts) {
  Context& context = workspace_.context;
  if (has_embedding()) {
    need(0, units_, true);
    const TensorGroup& group = workspace_.group;
    group
        .leave(acts.x[0],
               [&](int strip, Tensor addends) {
                 embedding_forward(context, group.cut(acts.input.ids, strip), weights_.embedding,
                                   workspace_.dims.local.first_id, addends);
               })
        .wait();
  }
  for (size_t i = 0; i < acts.blocks.size(); ++i) {
    const int64_t unit = first_block_unit_ + static_cast<int64_t>(i);
    need(unit, units_, true);
    block_forward(context, block_env(unit, acts.input), weights_.blocks[i], acts.input, acts.x[i],
                  acts.blocks[i], workspace_.scratch, acts.x[i + 1]);
  }
}

void Stage::forward(int slot, Pass pass, double loss_scale, int64_t loss) {
  SlotActs& acts = slots_[static_cast<size_t>(slot)];
  as_graph({slot, ActionKind::forward, units_.begin, units_.count, acts.input.has_documents},
           [&] { forward_layers(acts); });
  if (!has_head()) return;
  // The head is the last unit, but for its own copy of a tied table.
  const int64_t head = spec_.L + 1;
  for (int64_t unit = head; unit < units_.end(); ++unit) need(unit, units_, true);
  const HeadEnv env = head_env();
  const HeadWeights w{.norm = weights_.final_norm, .table = weights_.head};
  HeadScratch scratch = workspace_.head;
  scratch.loss = slice(scratch.loss, {loss, 1});
  if (pass == Pass::evaluate)
    return head_loss(workspace_.context, env, w, acts.input, acts.x.back(), scratch);
  HeadWeights dw{.norm = dweights_.final_norm, .table = dweights_.head};
  if (hooks_ != nullptr) {
    if (head_reads_embedding()) hooks_->open_gradients(0);
    for (int64_t unit = head; unit < units_.end(); ++unit) hooks_->open_gradients(unit);
  }
  head_loss_and_gradient(workspace_.context, env, w, acts.input, acts.x.back(), scratch, loss_scale, acts.d,
                         dw);
  for (int64_t unit = head; unit < units_.end() && hooks_ != nullptr; ++unit) hooks_->close_gradients(unit);
}

void Stage::backward(int slot, Range units, ActionKind kind) {
  SlotActs& acts = slots_[static_cast<size_t>(slot)];
  as_graph({slot, kind, units.begin, units.count, acts.input.has_documents},
           [&] { backward_units(acts, units, kind); });
}

void Stage::backward_block(SlotActs& acts, int64_t unit, ActionKind kind) {
  Context& context = workspace_.context;
  const size_t i = block_of(unit);
  const BlockEnv env = block_env(unit, acts.input);
  BlockActs& kept = acts.blocks[i];
  const Tensor y = kind == ActionKind::backward ? Tensor{} : acts.x[i + 1];
  if (kind == ActionKind::backward_weights)
    return block_backward_weights(context, env, kept, workspace_.scratch, y, dweights_.blocks[i]);
  block_again(context, env, weights_.blocks[i], acts.input, rules_.blocks[i], acts.x[i], kept,
              workspace_.scratch);
  block_backward(context, env, weights_.blocks[i], acts.input, acts.x[i], kept, workspace_.scratch, acts.d,
                 dweights_.blocks[i], y);
}

void Stage::backward_units(SlotActs& acts, Range units, ActionKind kind) {
  const bool has_weights = kind != ActionKind::backward_input;
  for (int64_t unit = units.end() - 1; unit >= units.begin; --unit) {
    if (unit > spec_.L) continue;  // the head's backward is part of its forward
    note_layer(unit);
    const bool is_open = unit == 0 && head_reads_embedding();  // since the head added to it
    if (is_block(unit)) need(unit, units, false);
    if (hooks_ != nullptr && !is_open) hooks_->open_gradients(unit);
    if (is_block(unit)) {
      backward_block(acts, unit, kind);
    } else if (has_weights) {
      const Tensor d = workspace_.group.enter(acts.d, workspace_.scratch.whole).wait();
      embedding_backward(workspace_.context, acts.input.ids, d, workspace_.dims.local.first_id,
                         dweights_.embedding);
    }
    if (hooks_ != nullptr) hooks_->close_gradients(unit);
  }
}

void Stage::logits(int slot, const std::function<void(int64_t first_row, Tensor logits)>& each) {
  const HeadWeights w{.norm = weights_.final_norm, .table = weights_.head};
  head_logits(workspace_.context, head_env(), w, slots_[static_cast<size_t>(slot)].x.back(), workspace_.head,
              each);
}

}  // namespace ptrain
