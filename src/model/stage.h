// A run of layers on one rank: embedding and head where it holds an end, blocks between. It owns the rank's
// memory of the model: weights, gradients, activations of its slots.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "kernels/base/stream.h"
#include "parallel/plan/plan.h"
#include "src/model/block.h"
#include "src/model/head.h"

namespace ptrain {

enum class Pass { train, evaluate };

/// A micro-batch's tokens on the host, N = B * T each; see MicroInput. targets: -100 = none.
struct TokenRows {
  std::span<const int32_t> ids, targets, positions, document_start;
};

/// The communicators a stage uses; null for groups of one.
struct StageComms {
  Communicator* tensor = nullptr;
};

class Stage {
 public:
  /// All memory of `rank`'s stage, zeroed: the sizes, the layers and the slots are the plan's. A stage that
  /// only evaluates has no gradients.
  Stage(const ModelSpec& spec, const Plan& plan, int rank, const StageComms& comms, const Context& context,
        Pass use = Pass::train);

  const FlatLayout& layout() const { return layout_; }
  const std::vector<PlacedWeight>& placed() const { return placed_; }
  const BlockDims& dims() const { return dims_; }
  const ModelSpec& spec() const { return spec_; }
  const Arena& arena() const { return arena_; }
  const StageWeights& weights() const { return weights_; }
  const Tensor& cos_sin() const { return cos_sin_; }
  Context& context() { return context_; }
  Tensor parameters() const { return parameters_; }  // (layout().elements)
  Tensor gradients() const { return gradients_; }    // (layout().trainable_elements)
  bool has_embedding() const { return static_cast<bool>(weights_.embedding) && first_unit_ == 0; }
  bool has_head() const { return static_cast<bool>(weights_.final_norm); }
  int blocks() const { return static_cast<int>(weights_.blocks.size()); }

  /// Memory on the host for a micro-batch's tokens, from which load() copies while the host goes on; and the
  /// tokens put there.
  MicroInput make_staging();
  void fill_staging(const TokenRows& tokens, MicroInput& staging) const;
  /// Puts a micro-batch into a slot. On a GPU `staging` must stay as it is until the copy has run.
  void load(int slot, const MicroInput& staging);
  /// Runs the stage's units on slot's input(). On the last stage adds to loss(), and with Pass::train
  /// leaves the gradient of loss_scale * loss in the slot.
  void forward(int slot, Pass pass, double loss_scale);
  /// Backward of the units in `units` (a run that ends where the last call of this slot began), descending.
  void backward(int slot, Range units);

  /// On the last stage, after forward(): the logits of the slot's rows, chunk by chunk; see head_logits.
  void logits(int slot, const std::function<void(int64_t first_row, Tensor logits)>& each);

  Tensor input(int slot) const { return slots_[static_cast<size_t>(slot)].x.front(); }
  Tensor output(int slot) const { return slots_[static_cast<size_t>(slot)].x.back(); }
  Tensor gradient(int slot) const { return slots_[static_cast<size_t>(slot)].d; }  // of output, then of input

  /// (1) f64, sum of negative log-likelihoods since clear(); empty where there is no head.
  Tensor loss() const { return head_scratch_.loss; }
  /// Zeroes the gradients and the loss.
  void clear();

 private:
  /// What of a slot runs without a look at the host: (slot, is backward, its run of units, has documents).
  using GraphKey = std::tuple<int, bool, int64_t, bool>;
  struct Captured {
    int64_t uses = 0;
    Graph graph;
  };
  void forward_layers(SlotActs& acts);
  void backward_units(SlotActs& acts, Range units);
  /// Runs what `work` enqueues; where the stage is bound by launches, from the third time on as one graph.
  template <class Work>
  void as_graph(const GraphKey& key, const Work& work);
  BlockEnv block_env(int block, const MicroInput& input) const;
  void fill_angles();
  HeadEnv head_env() const { return {.dims = dims_, .norm_eps = spec_.norm_eps, .group = group_}; }
  const BlockWeights& block_weights(int block) const { return weights_.blocks[static_cast<size_t>(block)]; }

  ModelSpec spec_;
  Context context_;
  BlockDims dims_;
  FlatLayout layout_;
  int first_unit_ = 0;
  std::vector<PlacedWeight> placed_;
  Arena arena_;
  std::vector<Buffer> staging_;
  std::map<GraphKey, Captured> graphs_;
  bool is_launch_bound_ = false;
  Tensor parameters_, gradients_, cos_sin_;
  StageWeights weights_, dweights_;
  std::vector<SlotActs> slots_;
  StageScratch scratch_;
  HeadScratch head_scratch_;
  TensorGroup group_;
  Products products_;
};

}  // namespace ptrain
