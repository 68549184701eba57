// One optimizer step at a time, over the whole mesh: built from the plan, it owns the model, the optimizer's
// state and the communicators, and knows nothing of files or logs.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "parallel/comm/mesh_comms.h"
#include "parallel/plan/plan.h"
#include "parallel/run/grad_sync.h"
#include "parallel/run/param_sync.h"
#include "parallel/run/pipeline.h"
#include "parallel/run/tied_sum.h"
#include "src/data/batches.h"
#include "src/model/model.h"
#include "src/train/config.h"
#include "src/train/loss_scale.h"
#include "src/train/metrics.h"
#include "src/train/offload.h"
#include "src/train/optimizer.h"
#include "src/train/run_device.h"

namespace ptrain {

struct Evaluation {
  double loss = 0;  // nats per supervised token; NaN without any
  int64_t supervised_tokens = 0;
  int64_t tokens = 0;  // not padding
};

/// Where numbers stop being finite: the place nearest to the cause, the same on all ranks.
struct FaultSite {
  enum class What {
    weight,        // of the model, or
    first_moment,  // of the optimizer: the damage is older than this step
    second_moment,
    loss,      // of a micro-batch
    gradient,  // of the loss in a weight
    nothing,   // it did not come again
  };
  What what = What::nothing;
  int rank = -1;
  std::string tensor;  // weight, moments, gradient: HF name
  int data = -1;       // loss, gradient: the rank's data coordinate
  int micro = -1;      // and its micro-batch; -1: not known
};

/// Receives, on the last stage's first tensor rank of each data rank, the logits of a micro-batch over the
/// whole vocabulary. `logits`: (N, V) f32, rows in the order of the micro-batch; valid during the call.
using LogitsOf = std::function<void(int64_t step, int micro, Tensor logits)>;

/// What counts `factor` times in a sum of checksums; see kernels/ops/checksum.h.
struct WeighedPart {
  Tensor values;
  uint64_t factor = 1;
};

class Trainer {
 public:
  /// Every rank of `world` calls, with the same plan; allocates everything that step() needs, or evaluate()
  /// alone. Errors: resources, where a GPU has not as much memory as the plan wants.
  Trainer(const ModelSpec& spec, const Config::Optimizer& rules, Plan plan, Communicator& world,
          const RunDevice& device, Pass use = Pass::train);
  ~Trainer();

  /// Step `step` (from 1) of `steps` with its rows of `batches`.
  StepResult step(const Batches& batches, int64_t step, int64_t steps);
  /// Loss over steps 1 … steps of `batches`, forward alone.
  Evaluation evaluate(const Batches& batches, int64_t steps, const LogitsOf& each = {});

  /// A collective, after a step that was not finite: looks through weights and moments, then computes the
  /// step again and looks at every loss and gradient before it is summed. Slow; changes no weight.
  FaultSite find_fault(const StepResult& step);
  /// Whether this rank's weights and moments are numbers below largest_norm. Waits for the exchange of the
  /// last step.
  bool holds_finite_state();
  /// Of parts of what it holds, all on one device, added up modulo 2^64. Waits for it once.
  uint64_t checksum(std::span<const WeighedPart> parts);
  /// A fault on purpose, where one is asked for: one bit of this rank's first weight.
  void flip_planted(int64_t step);

  const Plan& plan() const { return plan_; }
  int rank() const { return rank_; }
  Coordinate coordinate() const { return plan_.mesh.coordinate_of(rank_); }
  Model& model() { return model_; }
  const Model& model() const { return model_; }
  const Optimizer& optimizer() const { return optimizer_; }
  MeshComms& comms() { return comms_; }
  /// Notes what this rank does in the following steps: actions, sums and gathers under way, the phases of a
  /// step. Not what evaluate() does. Null: nothing. `tracer` outlives this, or is taken away by null.
  void set_tracer(Tracer* tracer);
  /// Spans that a step may have.
  size_t spans_of_a_step() const;
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }
  LossScale& loss_scale() { return loss_scale_; }
  /// Bytes that step() works in.
  int64_t arena_bytes() const { return model_.arena().used_bytes() + arena_.used_bytes(); }
  /// Bytes of pinned host memory that an offloaded optimizer works in; 0 without one.
  int64_t host_arena_bytes() const { return offload_ == nullptr ? 0 : offload_->arena_bytes(); }
  /// To be called when model().owned_parameters() or optimizer().master() were written from outside.
  void note_new_parameters();
  /// A collective: the same where nobody wrote what other data ranks own. It sets out from them to here.
  void spread_new_parameters();
  /// Waits until all parameters of the last step are where they are read; for who looks at them between
  /// steps.
  void finish_exchange() { parameters_.finish(); }

 private:
  class Work;
  class Hooks;
  struct Probe;

  void watch(Tracer* tracer);
  void look();
  void check_ledgers() const;
  Tensor host_scalars() const;
  void load_rows(const Batches& batches, int64_t step);
  void play(Pipeline& pipeline, Pass pass, double loss_scale);
  void sum_up(Pass pass);
  struct Sums {
    double loss = 0, squares = 0, scale = 0;  // scale: see gradient_scale()
  };
  Sums read_sums();
  Sums update(const AdamWStep& step, PhaseSpan& phase);
  void sum_over_data(std::array<int64_t, 2>& counts);
  int64_t loss_of(int micro) const;
  template <class Number, class Add>
  Number sum_on(Device device, const Add& add);
  bool is_beyond(const std::vector<Tensor>& values, double limit);
  void look_at_state(Probe& probe);
  void look_at_loss(int micro);
  void look_at_gradients(Range units, int micro);
  FaultSite first_of(const Probe& probe);
  static std::optional<float> planted_value(int64_t step);
  void plant(int bucket);
  void show_logits(Stage& stage, int slot, int micro);

  ModelSpec spec_;
  Config::Optimizer rules_;
  Plan plan_;
  int rank_;
  Context context_;
  MeshComms comms_;
  OpRing* ops_;  // of the world; null where nobody watches
  Model model_;
  GradSync gradients_;
  ParamSync parameters_;
  TiedSum tied_;
  std::unique_ptr<Hooks> hooks_;
  Optimizer optimizer_;
  std::unique_ptr<OffloadedOptimizer> offload_;  // null without parallel.offload
  Arena arena_;
  Tensor scalars_;  // f64, see trainer.cpp
  Buffer host_scalars_;
  Tensor bins_;                      // (256, 2) i64, of the exact sum of squares; empty without
  Pipeline train_, evaluate_;        // the plan's program; its forwards alone
  std::vector<MicroBatch> rows_;     // of the step, one a micro-batch
  std::vector<MicroInput> staging_;  // the same as the device copies it
  LossScale loss_scale_;
  const LogitsOf* shows_logits_ = nullptr;  // while evaluate() wants them
  int64_t evaluated_step_ = 0;
  int64_t updates_ = 0;
  Tracer* tracer_ = nullptr;
  Probe* probe_ = nullptr;        // while find_fault() looks
  std::optional<float> planted_;  // a fault on purpose: the next gradient that is whole becomes this
};

}  // namespace ptrain
