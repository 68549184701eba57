#include "src/train/state_files.h"

#include "src/train/model_files.h"

namespace ptrain {
namespace {

/// Elements `range` of the local box of a weight.
StateSlice slice_of(const PlacedWeight& weight, Range range) {
  return {.name = weight.spec.piece.name,
          .shape = weight.spec.piece.shape,
          .slice = {.box = weight.box, .range = range},
          .weight = {},
          .first_moment = {},
          .second_moment = {}};
}

/// Adds the moments of `range`, which lies inside the segment's part of the weight.
void add_moments(Tensor m, Tensor v, const UpdateSegment& segment, const PlacedWeight& weight,
                 StateSlice& out) {
  if (!m) return;
  const int64_t first = segment.state + out.slice.range.begin + weight.offset - segment.elements.begin;
  out.first_moment = slice(m, {first, out.slice.range.count});
  out.second_moment = slice(v, {first, out.slice.range.count});
}

}  // namespace

std::vector<StateSlice> slices_to_save(const Trainer& trainer, const HostState& state) {
  return slices_to_save(trainer, state.weights(), state.m(), state.v());
}

std::vector<StateSlice> slices_to_save(const Trainer& trainer, const FlatMemory& weights, Tensor m,
                                       Tensor v) {
  const Plan& plan = trainer.plan();
  const Model& model = trainer.model();
  const Coordinate at = trainer.coordinate();
  std::vector<StateSlice> slices;
  for (const UpdateSegment& segment : trainer.optimizer().segments()) {
    const PlacedWeight& weight = model.placed()[static_cast<size_t>(segment.weight)];
    if (weight.spec.is_tied_copy) continue;
    const auto counted =
        counted_box(weight.spec.piece.shape, weight.spec.piece.layout, plan.mesh, trainer.rank());
    if (!counted) continue;
    // The data ranks' segments tile the weight. ZeRO-0: each holds all of it and saves its part.
    Range mine{segment.elements.begin - weight.offset, segment.elements.count};
    if (plan.zero == 0) {
      const Range part = part_of(mine.count, at.data, plan.mesh.data);
      mine = {mine.begin + part.begin, part.count};
    }
    for (const Range inside : flat_ranges(weight.box, *counted)) {
      const Range range = intersection(mine, inside);
      if (range.count == 0) continue;
      StateSlice& out = slices.emplace_back(slice_of(weight, range));
      out.weight = weights.at({weight.offset + range.begin, range.count});
      add_moments(m, v, segment, weight, out);
    }
  }
  return slices;
}

std::vector<StateSlice> slices_to_load(const Trainer& trainer, const HostState& state) {
  const Model& model = trainer.model();
  std::vector<StateSlice> slices;
  const bool holds_all = model.held_parameters() == Held::whole;
  for (const PlacedWeight& weight : model.placed()) {
    if (!holds_all) break;
    StateSlice& out = slices.emplace_back(slice_of(weight, {0, weight.box.numel()}));
    out.weight = state.weights().at({weight.offset, weight.box.numel()});
  }
  for (const UpdateSegment& segment : trainer.optimizer().segments()) {
    const PlacedWeight& weight = model.placed()[static_cast<size_t>(segment.weight)];
    StateSlice& out = slices.emplace_back(
        slice_of(weight, {segment.elements.begin - weight.offset, segment.elements.count}));
    if (!holds_all) out.weight = state.weights().at(segment.elements);
    add_moments(state.m(), state.v(), segment, weight, out);
  }
  return slices;
}

}  // namespace ptrain
