#include "src/model/stage.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/stream.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "src/model/host_flat.h"

namespace ptrain {
namespace {

/// The table's weights in the order and at the places of the flat layout.
std::vector<PlacedWeight> place(const std::vector<WeightSpec>& table, const FlatLayout& layout) {
  std::vector<std::vector<const WeightSpec*>> of_unit;
  for (const WeightSpec& weight : table) {
    of_unit.resize(std::max(of_unit.size(), static_cast<size_t>(weight.unit) + 1));
    of_unit[static_cast<size_t>(weight.unit)].push_back(&weight);
  }
  std::vector<PlacedWeight> placed;
  for (const FlatPiece& piece : layout.pieces) {
    const WeightSpec* spec = of_unit.at(static_cast<size_t>(piece.unit)).at(static_cast<size_t>(piece.index));
    placed.push_back({.spec = *spec, .box = piece.box, .offset = piece.elements.begin});
  }
  return placed;
}

/// A block's dozen kernels take the host about 50 us to enqueue. Where a fast GPU (400 TFLOP/s) is done with
/// their products in ten times that, the host is in its way.
bool is_bound_by_launches(const ModelSpec& spec, int64_t rows) {
  const auto weights = static_cast<double>(spec.C * spec.D * (2 * spec.H + 2 * spec.K) + 3 * spec.C * spec.F);
  constexpr double flops_of_a_gpu = 400e12, short_s = 500e-6;
  return 2 * weights * static_cast<double>(rows) < short_s * flops_of_a_gpu;
}

SequenceParallel sequence_parallel_of(const Plan& plan) {
  return plan.parallel.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
}

}  // namespace

Stage::Stage(const ModelSpec& spec, const Plan& plan, int rank, const StageComms& comms,
             const Context& context, Pass use)
    : spec_(spec),
      context_(context),
      dims_(block_dims(spec, plan.mesh, rank, plan.parallel.micro, plan.parallel.sequence_length,
                       sequence_parallel_of(plan), plan.parallel.types.param)),
      layout_(flat_layout_of(plan, rank)),
      first_unit_(static_cast<int>(layout_.units.begin)) {
  placed_ = place(weights_of(spec, sequence_parallel_of(plan), plan.is_tied_apart), layout_);
  const bool is_last = layout_.units.end() == spec.L + 2;
  const int first_block = std::max(0, first_unit_ - 1);
  const int blocks = static_cast<int>(std::min(layout_.units.end() - 1, spec.L)) - first_block;
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  slots_.resize(static_cast<size_t>(plan.slots.at(static_cast<size_t>(position)).at(0)));

  // Every block wants the same beside its tensors.
  const int64_t product_bytes = blocks > 0 ? plan.workload.units.at(1).scratch_bytes : 0;
  Tensor products;
  // Everything once as sizes, then once as memory: one table for both.
  const auto grant = [&](const std::function<VisitTensor(std::string)>& to) {
    const VisitTensor each = to("");
    const StateTypes& types = plan.parallel.types;
    each("parameters", parameters_, {layout_.elements}, types.param);
    each("gradients", gradients_, {use == Pass::train ? layout_.trainable_elements : 0}, types.grad);
    each("ops", context_.scratch, {plan.workload.op_scratch_bytes}, DType::u8);
    each("cos_sin", cos_sin_, {dims_.T, spec.D / 2, 2}, wide(types.param));
    for (size_t slot = 0; slot < slots_.size(); ++slot)
      visit(dims_, blocks, slots_[slot], to(fmt::format("slot {} ", slot)));
    visit(dims_, scratch_, each);
    each("products", products, {product_bytes}, DType::u8);
    if (is_last) visit(dims_, head_scratch_, to("head "));
  };
  int64_t bytes = 0;
  grant([&](std::string) { return add_up(bytes); });
  arena_ = Arena(bytes, context.device);
  grant([&](std::string prefix) { return take_from(arena_, std::move(prefix)); });

  fill_angles();
  weights_ = bind_weights(placed_, parameters_, first_block, blocks);
  if (use == Pass::train) dweights_ = bind_weights(placed_, gradients_, first_block, blocks);
  products_ = Products(products);
  // Collectives of a tensor group stay outside of graphs.
  is_launch_bound_ =
      context_.stream != nullptr && comms.tensor == nullptr && is_bound_by_launches(spec, dims_.N);
  group_ = TensorGroup(comms.tensor, sequence_parallel_of(plan), scratch_.partial);
}

BlockEnv Stage::block_env(int block, const MicroInput& input) const {
  const int64_t layer = std::max(0, first_unit_ - 1) + block;
  return {.dims = dims_,
          .norm_eps = spec_.norm_eps,
          .cos_sin = cos_sin_,
          .attention = {.B = dims_.B,
                        .T = dims_.T,
                        .H = dims_.local.H,
                        .K = dims_.local.K,
                        .D = dims_.D,
                        .group = spec_.H / spec_.K,
                        .first_head = dims_.local.first_head,
                        .scale = 1.0 / std::sqrt(static_cast<double>(dims_.D)),
                        .window = layer >= spec_.first_window_layer ? spec_.window : 0,
                        .has_documents = input.has_documents},
          .group = group_,
          .products = products_};
}

void Stage::fill_angles() {
  const OwnedTensor angles(cos_sin_.shape, cos_sin_.dtype);
  fill_rope_table(spec_, angles.view);
  from_host(context_, angles.view, cos_sin_);
}

MicroInput Stage::make_staging() {
  MicroInput input;
  staging_.push_back(bind_host([&](const VisitTensor& each) { visit(dims_, input, each); }, context_.device));
  return input;
}

void Stage::fill_staging(const TokenRows& tokens, MicroInput& staging) const {
  const auto put = [&](std::span<const int32_t> from, Tensor to) {
    check(static_cast<int64_t>(from.size()) == dims_.N, "a micro-batch of {} tokens for a stage of {}",
          from.size(), dims_.N);
    std::copy(from.begin(), from.end(), to.as<int32_t>());
  };
  put(tokens.ids, staging.ids);
  put(tokens.positions, staging.positions);
  put(tokens.document_start, staging.document_start);
  staging.has_documents =
      std::ranges::any_of(tokens.document_start, [](int32_t start) { return start != 0; });
  staging.num_supervised = 0;
  for (int64_t row = 0; row < dims_.N; ++row) {
    const int32_t target = tokens.targets[static_cast<size_t>(row)];
    if (target < 0) continue;
    staging.supervised.as<int32_t>()[staging.num_supervised] = static_cast<int32_t>(row);
    staging.targets.as<int32_t>()[staging.num_supervised++] = target;
  }
}

void Stage::load(int slot, const MicroInput& staging) {
  MicroInput& input = slots_[static_cast<size_t>(slot)].input;
  transfer(context_, staging.ids, input.ids);
  transfer(context_, staging.positions, input.positions);
  transfer(context_, staging.document_start, input.document_start);
  transfer(context_, staging.supervised, input.supervised);
  transfer(context_, staging.targets, input.targets);
  input.num_supervised = staging.num_supervised;
  input.has_documents = staging.has_documents;
}

template <class Work>
void Stage::as_graph(const GraphKey& key, const Work& work) {
  if (!is_launch_bound_) return work();
  // The first time libraries choose their algorithms; what is recorded the second time is what then runs.
  Captured& captured = graphs_[key];
  if (captured.uses++ == 0) return work();
  if (!captured.graph) captured.graph.capture(*context_.stream, work);
  captured.graph.launch(*context_.stream);
}

void Stage::forward_layers(SlotActs& acts) {
  if (has_embedding()) {
    embedding_forward(context_, acts.input.ids, weights_.embedding, dims_.local.first_id,
                      group_.addends(acts.x[0]));
    group_.leave(acts.x[0]);
  }
  for (int block = 0; block < blocks(); ++block) {
    const auto i = static_cast<size_t>(block);
    block_forward(context_, block_env(block, acts.input), weights_.blocks[i], acts.input, acts.x[i],
                  acts.blocks[i], scratch_, acts.x[i + 1]);
  }
}

void Stage::forward(int slot, Pass pass, double loss_scale) {
  SlotActs& acts = slots_[static_cast<size_t>(slot)];
  as_graph({slot, false, 0, acts.input.has_documents}, [&] { forward_layers(acts); });
  if (!has_head()) return;
  const HeadEnv env = head_env();
  const HeadWeights w{.norm = weights_.final_norm, .table = weights_.head};
  if (pass == Pass::evaluate) {
    head_loss(context_, env, w, acts.input, acts.x.back(), head_scratch_);
  } else {
    HeadWeights dw{.norm = dweights_.final_norm, .table = dweights_.head};
    head_loss_and_gradient(context_, env, w, acts.input, acts.x.back(), head_scratch_, loss_scale, acts.d,
                           dw);
  }
}

void Stage::backward(int slot, Range units) {
  SlotActs& acts = slots_[static_cast<size_t>(slot)];
  as_graph({slot, true, units.begin * (spec_.L + 3) + units.count, acts.input.has_documents},
           [&] { backward_units(acts, units); });
}

void Stage::backward_units(SlotActs& acts, Range units) {
  const int64_t first_block_unit = std::max(first_unit_, 1);
  for (int64_t unit = units.end() - 1; unit >= units.begin; --unit) {
    if (unit == spec_.L + 1) continue;  // the head's backward is part of its forward
    if (unit == 0) {
      const Tensor d = group_.enter(acts.d, scratch_.whole);
      embedding_backward(context_, acts.input.ids, d, dims_.local.first_id, dweights_.embedding);
      continue;
    }
    const auto i = static_cast<size_t>(unit - first_block_unit);
    block_backward(context_, block_env(static_cast<int>(i), acts.input), weights_.blocks[i], acts.input,
                   acts.x[i], acts.blocks[i], scratch_, acts.d, dweights_.blocks[i]);
  }
}

void Stage::logits(int slot, const std::function<void(int64_t first_row, Tensor logits)>& each) {
  const HeadWeights w{.norm = weights_.final_norm, .table = weights_.head};
  head_logits(context_, head_env(), w, slots_[static_cast<size_t>(slot)].x.back(), head_scratch_, each);
}

void Stage::clear() {
  fill(context_, gradients_, 0);
  if (loss()) fill(context_, loss(), 0);
}

}  // namespace ptrain
