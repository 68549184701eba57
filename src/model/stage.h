// A run of layers on one rank: embedding and head where it holds an end, blocks between, and its slots. Its
// memory is the Model's.
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

/// What all stages of a rank share while they run.
struct Workspace {
  Context context;
  BlockDims dims;
  Tensor cos_sin;
  StageScratch scratch;
  HeadScratch head;  // on the last stage
  TensorGroup group;
  Products products;
  OpRing* ops = nullptr;
};

/// Asked before a unit's weights are read and around its gradients of a micro-batch, where they come and go.
/// Units as in Workload; `next`: the unit that is read after this one, or -1.
class UnitHooks {
 public:
  virtual ~UnitHooks() = default;
  virtual void need(int64_t unit, int64_t next) = 0;
  virtual void open_gradients(int64_t unit) = 0;
  virtual void close_gradients(int64_t unit) = 0;
};

class Stage {
 public:
  Stage(const ModelSpec& spec, const Plan& plan, const StagePlan& part, Workspace& workspace);

  /// Every tensor of slot `slot`, for the memory's owner.
  void visit_slot(size_t slot, const VisitTensor& each);
  size_t slots() const { return slots_.size(); }
  /// Where weights are read and gradients are added. gradients: empty where it only evaluates.
  void bind(const std::vector<PlacedWeight>& placed, const FlatMemory& parameters,
            const FlatMemory& gradients);
  /// hooks: null where weights and gradients lie still.
  void set_hooks(UnitHooks* hooks) { hooks_ = hooks; }

  Range units() const { return units_; }
  const std::vector<Range>& bucket_units() const { return bucket_units_; }
  bool has_embedding() const { return units_.begin == 0; }
  bool has_head() const { return static_cast<bool>(weights_.final_norm); }
  const StageWeights& weights() const { return weights_; }

  /// Puts a micro-batch into a slot. On a GPU `staging` must stay as it is until the copy has run.
  void load(int slot, const MicroInput& staging);
  /// Runs the stage's units on slot's input(). On the last stage adds to element `loss` of the model's loss,
  /// and with Pass::train leaves the gradient of loss_scale * loss in the slot.
  void forward(int slot, Pass pass, double loss_scale, int64_t loss = 0);
  /// Backward of the units in `units` (a run that ends where the last call of this slot began), descending.
  /// kind: backward, or one of its halves.
  void backward(int slot, Range units, ActionKind kind = ActionKind::backward);

  /// On the last stage, after forward(): the logits of the slot's rows, chunk by chunk; see head_logits.
  void logits(int slot, const std::function<void(int64_t first_row, Tensor logits)>& each);

  Tensor input(int slot) const { return slots_[static_cast<size_t>(slot)].x.front(); }
  Tensor output(int slot) const { return slots_[static_cast<size_t>(slot)].x.back(); }
  Tensor gradient(int slot) const { return slots_[static_cast<size_t>(slot)].d; }  // of output, then of input

 private:
  /// What of a slot runs without a look at the host: (slot, what, its first unit, their number, documents).
  using GraphKey = std::tuple<int, ActionKind, int64_t, int64_t, bool>;
  struct Captured {
    int64_t uses = 0;
    Graph graph;
  };
  void note_layer(int64_t unit) const;
  void need(int64_t unit, Range units, bool is_forward);
  void need_all(Range units);
  void forward_layers(SlotActs& acts);
  void backward_units(SlotActs& acts, Range units, ActionKind kind);
  void backward_block(SlotActs& acts, int64_t unit, ActionKind kind);
  /// Runs what `work` enqueues; where the stage is bound by launches, from the third time on as one graph.
  template <class Work>
  void as_graph(const GraphKey& key, const Work& work);
  BlockEnv block_env(int64_t unit, const MicroInput& input) const;
  HeadEnv head_env() const {
    return {.dims = workspace_.dims, .norm_eps = spec_.norm_eps, .group = workspace_.group};
  }
  bool head_reads_embedding() const { return has_head() && weights_.head.data == weights_.embedding.data; }
  bool is_block(int64_t unit) const { return unit >= 1 && unit <= spec_.L; }
  size_t block_of(int64_t unit) const { return static_cast<size_t>(unit - first_block_unit_); }

  const ModelSpec& spec_;
  Workspace& workspace_;
  Range units_;
  std::vector<Range> bucket_units_;
  int64_t first_block_unit_ = 0;
  KeepRules rules_;
  std::vector<SlotActs> slots_;
  StageWeights weights_, dweights_;
  UnitHooks* hooks_ = nullptr;
  std::map<GraphKey, Captured> graphs_;
  bool is_launch_bound_ = false;
};

}  // namespace ptrain
