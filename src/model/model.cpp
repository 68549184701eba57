#include "src/model/model.h"

#include <algorithm>

#include "kernels/ops/elementwise.h"
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

SequenceParallel sequence_parallel_of(const Plan& plan) {
  return plan.parallel.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
}

}  // namespace

Model::Model(const ModelSpec& spec, const Plan& plan, int rank, const ModelComms& comms,
             const Context& context, Pass use)
    : spec_(spec),
      layout_(flat_layout_of(plan, rank)),
      held_parameters_(plan.zero == 3 ? Held::shards : Held::whole) {
  const Coordinate at = plan.mesh.coordinate_of(rank);
  workspace_.context = context;
  workspace_.dims =
      block_dims(spec, plan.mesh, rank, plan.parallel.micro, plan.parallel.sequence_length,
                 sequence_parallel_of(plan), plan.parallel.tensor_strips, plan.parallel.types.param);
  placed_ = place(weights_of(spec, sequence_parallel_of(plan), plan.is_tied_apart), layout_);
  bool has_head = false;
  for (int chunk = 0; chunk < plan.map.chunks(); ++chunk) {
    const int stage = plan.map.stage_of(at.pipeline, chunk);
    stages_.push_back(
        std::make_unique<Stage>(spec_, plan, plan.stages[static_cast<size_t>(stage)], workspace_));
    has_head |= plan.map.is_last(stage);
  }
  const UnitPlaces places = plan.has_unit_gradients() ? unit_places(plan, layout_) : UnitPlaces{};
  unit_parameters_.resize(plan.zero == 3 ? places.elements.size() : 0);
  unit_gradients_.resize(use == Pass::train ? places.elements.size() : 0);

  // Everything once as sizes, then once as memory: one table for both.
  const int64_t product_bytes = plan.workload.units.at(1).scratch_bytes;  // every block wants the same
  const int64_t held = plan.zero == 3 ? shard_elements(layout_) : layout_.elements;
  const int64_t summed = plan.zero >= 2 ? shard_elements(layout_) : layout_.trainable_elements;
  Tensor products;
  const auto grant = [&](const std::function<VisitTensor(std::string)>& to) {
    const VisitTensor each = to("");
    const StateTypes& types = plan.parallel.types;
    each("parameters", parameters_, {held}, types.param);
    each("gradients", gradients_, {use == Pass::train ? summed : 0}, types.grad);
    for (size_t i = 0; i < unit_gradients_.size(); ++i)
      each("gradients of a unit", unit_gradients_[i], {places.elements[i]}, types.grad);
    for (size_t i = 0; i < unit_parameters_.size(); ++i)
      each("parameters of a unit", unit_parameters_[i], {places.elements[i]}, types.param);
    each("ops", workspace_.context.scratch, {plan.workload.op_scratch_bytes}, DType::u8);
    each("cos_sin", workspace_.cos_sin, {workspace_.dims.T, spec.D / 2, 2}, wide(types.param));
    for (size_t chunk = 0; chunk < stages_.size(); ++chunk) {
      for (size_t slot = 0; slot < stages_[chunk]->slots(); ++slot)
        stages_[chunk]->visit_slot(slot, to(fmt::format("stage {} slot {} ", chunk, slot)));
    }
    visit(workspace_.dims, plan.recompute_at(at.pipeline), workspace_.scratch, each);
    each("products", products, {product_bytes}, DType::u8);
    if (has_head) visit(workspace_.dims, plan.losses(), workspace_.head, to("head "));
  };
  int64_t bytes = 0;
  grant([&](std::string) { return add_up(bytes); });
  arena_ = Arena(bytes, context.device);
  grant([&](std::string prefix) { return take_from(arena_, std::move(prefix)); });

  fill_angles();
  workspace_.products = Products(products);
  workspace_.ops = comms.ops;
  workspace_.group = TensorGroup(comms.tensor, sequence_parallel_of(plan), plan.parallel.tensor_strips,
                                 workspace_.scratch.partial);
  owned_ = flat_memory(parameters_, layout_, at.data, held_parameters_);
  read_ = plan.zero == 3 ? place_units(places, unit_parameters_) : owned_;
  if (use == Pass::train) {
    summed_ = flat_memory(gradients_, layout_, at.data, plan.zero >= 2 ? Held::shards : Held::whole);
    written_ = plan.has_unit_gradients() ? place_units(places, unit_gradients_) : summed_;
  }
  for (const std::unique_ptr<Stage>& stage : stages_) stage->bind(placed_, read_, written_);
}

FlatMemory Model::place_units(const UnitPlaces& places, const std::vector<Tensor>& memory) const {
  FlatMemory result;
  for (size_t bucket = 0; bucket < layout_.buckets.size(); ++bucket) {
    const Range elements = layout_.buckets[bucket].elements;
    const Tensor place = memory[static_cast<size_t>(places.of_bucket[bucket])];
    result.add(elements, slice(place, {0, elements.count}));
  }
  return result;
}

void Model::set_hooks(UnitHooks* hooks) {
  for (const std::unique_ptr<Stage>& stage : stages_) stage->set_hooks(hooks);
}

void Model::fill_angles() {
  const OwnedTensor angles(workspace_.cos_sin.shape, workspace_.cos_sin.dtype);
  fill_rope_table(spec_, angles.view);
  from_host(workspace_.context, angles.view, workspace_.cos_sin);
}

MicroInput Model::make_staging() {
  MicroInput input;
  staging_.push_back(bind_host([&](const VisitTensor& each) { visit(workspace_.dims, input, each); },
                               workspace_.context.device));
  return input;
}

void Model::fill_staging(const TokenRows& tokens, MicroInput& staging) const {
  const int64_t N = workspace_.dims.N;
  const auto put = [&](std::span<const int32_t> from, Tensor to) {
    check(static_cast<int64_t>(from.size()) == N, "a micro-batch of {} tokens for a model of {}", from.size(),
          N);
    std::copy(from.begin(), from.end(), to.as<int32_t>());
  };
  put(tokens.ids, staging.ids);
  put(tokens.positions, staging.positions);
  put(tokens.document_start, staging.document_start);
  staging.has_documents =
      std::ranges::any_of(tokens.document_start, [](int32_t start) { return start != 0; });
  staging.num_supervised = 0;
  for (int64_t row = 0; row < N; ++row) {
    const int32_t target = tokens.targets[static_cast<size_t>(row)];
    if (target < 0) continue;
    staging.supervised.as<int32_t>()[staging.num_supervised] = static_cast<int32_t>(row);
    staging.targets.as<int32_t>()[staging.num_supervised++] = target;
  }
}

void Model::clear() {
  fill(workspace_.context, gradients_, 0);
  if (loss()) fill(workspace_.context, loss(), 0);
}

}  // namespace ptrain
