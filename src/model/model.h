// A rank's part of the model: its stages, and the memory of their weights, gradients and activations.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/plan/places.h"
#include "src/model/stage.h"

namespace ptrain {

/// The communicators a model uses; null for groups of one.
struct ModelComms {
  Communicator* tensor = nullptr;
  OpRing* ops = nullptr;  // where it is noted which layer is computed
};

class Model {
 public:
  /// All memory of `rank`, zeroed: sizes, layers and slots are the plan's. A model that only evaluates has no
  /// gradients.
  Model(const ModelSpec& spec, const Plan& plan, int rank, const ModelComms& comms, const Context& context,
        Pass use = Pass::train);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  Stage& stage(int chunk = 0) { return *stages_[static_cast<size_t>(chunk)]; }
  const Stage& stage(int chunk = 0) const { return *stages_[static_cast<size_t>(chunk)]; }
  int stages() const { return static_cast<int>(stages_.size()); }
  void set_hooks(UnitHooks* hooks);
  /// Who notes what is under way in the tensor group from here on. Null: nobody.
  void set_tracer(Tracer* tracer) { workspace_.group.set_tracer(tracer); }

  const ModelSpec& spec() const { return spec_; }
  const FlatLayout& layout() const { return layout_; }
  const std::vector<PlacedWeight>& placed() const { return placed_; }
  const BlockDims& dims() const { return workspace_.dims; }
  const Tensor& cos_sin() const { return workspace_.cos_sin; }
  const Arena& arena() const { return arena_; }
  Context& context() { return workspace_.context; }
  bool has_head() const { return static_cast<bool>(workspace_.head.loss); }

  /// What this rank updates: (layout().elements), under ZeRO-3 its shards alone.
  Tensor parameters() const { return parameters_; }
  Held held_parameters() const { return held_parameters_; }
  const FlatMemory& owned_parameters() const { return owned_; }
  /// Where the layers read.
  const FlatMemory& read_parameters() const { return read_; }
  /// Where backward adds, and where the sums of a step end: (layout().trainable_elements), under ZeRO 2 and 3
  /// the rank's shards alone.
  const FlatMemory& written_gradients() const { return written_; }
  const FlatMemory& summed_gradients() const { return summed_; }
  Tensor gradients() const { return gradients_; }

  /// (Plan::losses()) f64, sums of negative log-likelihoods since clear(); empty where there is no head.
  Tensor loss() const { return workspace_.head.loss; }
  /// Zeroes the gradients and the loss.
  void clear();

  /// Memory on the host for a micro-batch's tokens, from which Stage::load copies while the host goes on; and
  /// the tokens put there.
  MicroInput make_staging();
  void fill_staging(const TokenRows& tokens, MicroInput& staging) const;

 private:
  FlatMemory place_units(const UnitPlaces& places, const std::vector<Tensor>& memory) const;
  void fill_angles();

  ModelSpec spec_;
  FlatLayout layout_;
  Held held_parameters_ = Held::whole;
  Workspace workspace_;
  std::vector<PlacedWeight> placed_;
  std::vector<std::unique_ptr<Stage>> stages_;
  Arena arena_;
  std::vector<Buffer> staging_;
  Tensor parameters_, gradients_;
  std::vector<Tensor> unit_parameters_, unit_gradients_;  // [place]
  FlatMemory owned_, read_, written_, summed_;
};

}  // namespace ptrain
