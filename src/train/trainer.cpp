#include "src/train/trainer.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/clock.h"
#include "kernels/base/fault.h"
#include "kernels/base/stream.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/exact_sum.h"
#include "parallel/comm/agree.h"
#include "parallel/plan/launch_order.h"
#include "src/model/host_flat.h"
#include "src/train/lr.h"

namespace ptrain {
namespace {

// Of the step: losses and the square sum of the gradients, then what multiplies the gradients.
int64_t num_scalars(const Plan& plan) {
  return plan.losses() + 2;
}
Range losses_range(const Plan& plan) {
  return {0, plan.losses()};
}
Range sums_range(const Plan& plan) {
  return {0, plan.losses() + 1};
}
/// The last loss and the square sum: what decides about the update. A loss that is not finite shows in the
/// gradients too.
Range decision_range(const Plan& plan) {
  return {plan.losses() - 1, 2};
}
Range squares_range(const Plan& plan) {
  return {plan.losses(), 1};
}
Range scale_range(const Plan& plan) {
  return {plan.losses() + 1, 1};
}

Communicator* unless_alone(const std::unique_ptr<Communicator>& comm) {
  return comm != nullptr && comm->size() > 1 ? comm.get() : nullptr;
}

/// Communicators for tensors where the run computes. The order in which ranks start their communication is
/// checked over all of them before there is any.
MeshComms comms_for(Communicator& world, const Plan& plan, const RunDevice& device) {
  agreed(world, [&] { check_launch_order(plan); });
  if (device.context.device.kind == DeviceKind::cpu) return make_mesh_comms(world, plan.mesh);
  DeviceCommOptions options = device.comms;
  options.edges = transfer_edges(plan);
  return make_device_comms(world, plan.mesh, device.context.device, *device.context.stream, options);
}

Context context_for(const RunDevice& device, const Plan& plan) {
  Context context = device.context;
  context.is_thread_invariant = plan.parallel.is_grid_invariant;
  return context;
}

}  // namespace

/// Parameters and gradients that come and go with the units.
class Trainer::Hooks : public UnitHooks {
 public:
  explicit Hooks(Trainer& trainer) : trainer_(trainer) {}

  void need(int64_t unit, int64_t next) override { trainer_.parameters_.need(unit, next); }
  void open_gradients(int64_t unit) override {
    if (trainer_.plan_.has_unit_gradients()) trainer_.gradients_.open(bucket_of(unit));
  }
  void close_gradients(int64_t unit) override {
    if (!trainer_.plan_.has_unit_gradients()) return;
    trainer_.plant(bucket_of(unit));
    trainer_.look_at_gradients({unit, 1}, -1);
    trainer_.gradients_.close(bucket_of(unit));
  }

 private:
  int bucket_of(int64_t unit) const { return trainer_.model_.layout().bucket_of_unit(unit); }

  Trainer& trainer_;
};

/// What the pipeline's actions mean for this rank.
class Trainer::Work : public StageWork {
 public:
  Work(Trainer& trainer, Pass pass, double loss_scale)
      : trainer_(trainer), pass_(pass), loss_scale_(loss_scale) {}

  void forward(const Action& action) override {
    Stage& stage = stage_of(action);
    stage.load(action.slot, trainer_.staging_[static_cast<size_t>(action.micro)]);
    stage.forward(action.slot, pass_, loss_scale_, trainer_.loss_of(action.micro));
    if (trainer_.shows_logits_ != nullptr && stage.has_head())
      trainer_.show_logits(stage, action.slot, action.micro);
    if (stage.has_head()) trainer_.look_at_loss(action.micro);
    trainer_.look();
  }
  void backward(const Action& action) override {
    Stage& stage = stage_of(action);
    const Range units =
        action.bucket < 0 ? stage.units() : stage.bucket_units().at(static_cast<size_t>(action.bucket));
    stage.backward(action.slot, units, action.kind);
    if (!trainer_.plan_.has_unit_gradients()) trainer_.look_at_gradients(units, action.micro);
    trainer_.look();
  }
  void hand(const Action& action) override {
    const Stage& from = stage_of(action);
    const Stage& to = trainer_.model_.stage(action.to_chunk);
    if (action.kind == ActionKind::hand_activation)
      return copy(trainer_.context_, from.output(action.slot), to.input(action.to_slot));
    copy(trainer_.context_, from.gradient(action.slot), to.gradient(action.to_slot));
  }
  void reduce(const Action& action) override {
    const int bucket = trainer_.model_.layout().bucket_of(action.chunk, action.bucket);
    Tracer* const tracer = trainer_.comms_.data->size() == 1 ? trainer_.tracer_ : nullptr;
    const double begin_s = tracer != nullptr ? tracer->now_s() : 0;
    trainer_.plant(bucket);
    trainer_.look_at_gradients(trainer_.model_.layout().buckets[static_cast<size_t>(bucket)].units, -1);
    trainer_.gradients_.start(bucket);
    // Nothing of it is under way then: it was the sum of what tensor ranks have copies of.
    if (tracer != nullptr)
      tracer->note(name_of(action.kind), SpanCategory::collective, begin_s, tracer->now_s(), bucket);
  }
  std::span<const Tensor> tensors(const Action& action) override {
    bundle_ = tensor_of(action);
    return {&bundle_, 1};
  }

 private:
  Stage& stage_of(const Action& action) const { return trainer_.model_.stage(action.chunk); }
  Tensor tensor_of(const Action& action) const {
    switch (action.kind) {
      case ActionKind::send_activation:
        return stage_of(action).output(action.slot);
      case ActionKind::receive_activation:
        return stage_of(action).input(action.slot);
      case ActionKind::send_gradient:
      case ActionKind::receive_gradient:
        return stage_of(action).gradient(action.slot);
      default:
        fail(ExitCode::defect, "{} carries no message", to_string(action));
    }
  }

  Trainer& trainer_;
  Pass pass_;
  double loss_scale_;
  Tensor bundle_;
};

Trainer::Trainer(const ModelSpec& spec, const Config::Optimizer& rules, Plan plan, Communicator& world,
                 const RunDevice& device, Pass use)
    : spec_(spec),
      rules_(rules),
      plan_(std::move(plan)),
      rank_(world.rank()),
      context_(context_for(device, plan_)),
      comms_(comms_for(world, plan_, device)),
      ops_(world.op_ring()),
      model_(spec, plan_, rank_, {.tensor = unless_alone(comms_.tensor), .ops = ops_}, context_, use),
      gradients_(plan_, model_.layout(), coordinate().data, unless_alone(comms_.tensor),
                 unless_alone(comms_.data)),
      parameters_(plan_, model_.layout(), coordinate().data, unless_alone(comms_.data)),
      tied_(plan_, model_.layout(), rank_, comms_.pipeline.get()),
      hooks_(std::make_unique<Hooks>(*this)),
      optimizer_(model_.layout(), model_.placed(), plan_.zero, coordinate().data),
      train_(plan_.program(rank_), comms_.pipeline.get()),
      evaluate_(
          forwards_of(plan_.schedule, plan_.map).programs.at(static_cast<size_t>(coordinate().pipeline)),
          comms_.pipeline.get()) {
  for (Pipeline* pipeline : {&train_, &evaluate_}) pipeline->set_op_ring(ops_);
  gradients_.set_op_ring(ops_);
  parameters_.set_op_ring(ops_);
  context_.scratch = model_.context().scratch;
  const StateTypes& types = plan_.parallel.types;
  Tensor m, v, master, staging, tied;
  std::vector<Tensor> levels(static_cast<size_t>(gradients_.levels()));
  const auto grant = [&](const VisitTensor& each) {
    each("scalars", scalars_, {num_scalars(plan_)}, DType::f64);
    if (use == Pass::evaluate) return;
    each("bins", bins_, {plan_.exact_bins() / 2, 2}, DType::i64);
    for (size_t level = 0; level < levels.size(); ++level)
      each("level", levels[level], {model_.layout().trainable_elements}, types.grad);
    if (plan_.parallel.offload == Offload::none) {
      each("m", m, {optimizer_.state_elements()}, types.moments);
      each("v", v, {optimizer_.state_elements()}, types.moments);
      if (types.master != types.param) each("master", master, {optimizer_.state_elements()}, types.master);
    }
    each("replica sums", staging, {gradients_.staging_elements()}, types.grad);
    each("tied", tied, {tied_.received_elements()}, types.grad);
  };
  int64_t bytes = 0;
  grant(add_up(bytes));
  arena_ = Arena(bytes, context_.device);
  host_scalars_ = Buffer::staging(num_scalars(plan_) * size_bytes(DType::f64), context_.device);
  grant(take_from(arena_, ""));
  optimizer_.bind(m, v, master);
  if (use == Pass::train && plan_.parallel.offload == Offload::optimizer)
    offload_ = std::make_unique<OffloadedOptimizer>(optimizer_, model_.layout(), types, context_);
  if (use == Pass::train) check_ledgers();
  // What the step sends lies in these two. On a CPU, and staged, there is nothing to make known.
  register_memory(comms_, model_.arena().data(), model_.arena().capacity_bytes());
  loss_scale_.is_used = types.param == DType::f16;
  for (int micro = 0; micro < plan_.micros; ++micro) staging_.push_back(model_.make_staging());
  parameters_.bind(model_.owned_parameters(), model_.read_parameters());
  gradients_.bind(model_.written_gradients(), model_.summed_gradients(), staging, context_, levels);
  tied_.bind(model_.summed_gradients(), tied);
  if (comms_.data->size() > 1 || plan_.has_unit_gradients()) model_.set_hooks(hooks_.get());
}

/// The plan that was printed is the run that happens, to the byte.
void Trainer::check_ledgers() const {
  const int64_t planned = ledger_of(plan_, rank_).total_bytes();
  check(arena_bytes() == planned, "rank {} took {} bytes, its plan says {}", rank_, arena_bytes(), planned);
  const int64_t on_host = host_ledger_of(plan_, rank_).total_bytes();
  check(host_arena_bytes() == on_host, "rank {} took {} bytes of host memory, its plan says {}", rank_,
        host_arena_bytes(), on_host);
}

void Trainer::note_new_parameters() {
  if (offload_ != nullptr) offload_->read_parameters(model_.owned_parameters());
}

void Trainer::spread_new_parameters() {
  note_new_parameters();
  parameters_.start();
}

Trainer::~Trainer() {
  // Nobody else waits for parameters that are still under way when a run ends. Where it ends by an error,
  // that error is what counts.
  try {
    parameters_.finish();
  } catch (const Error&) {
  }
}

void Trainer::load_rows(const Batches& batches, int64_t step) {
  rows_.clear();
  for (int micro = 0; micro < plan_.micros; ++micro) {
    const MicroBatch& rows = rows_.emplace_back(batches.micro_batch(step, coordinate().data, micro));
    model_.fill_staging({rows.ids, rows.targets, rows.positions, rows.document_start},
                        staging_[static_cast<size_t>(micro)]);
  }
}

void Trainer::play(Pipeline& pipeline, Pass pass, double loss_scale) {
  Work work(*this, pass, loss_scale);
  pipeline.run(work);
}

StepResult Trainer::step(const Batches& batches, int64_t step, int64_t steps) {
  const double begin_s = now_s(), waited_before_s = comms_.world->waited_s();
  const PhaseSpan whole(tracer_, "step");
  PhaseSpan phase(tracer_, "rows", ops_);
  fault::point("in_step", step);
  // 1. Rows, and the number of supervised tokens of the whole step, before the first backward.
  load_rows(batches, step);
  std::array<int64_t, 2> counts{};  // supervised, tokens
  for (const MicroBatch& rows : rows_) {
    counts[0] += rows.supervised;
    counts[1] += rows.tokens;
  }
  sum_over_data(counts);
  StepResult result{.step = step,
                    .learning_rate = learning_rate(rules_, step, steps),
                    .supervised_tokens = counts[0],
                    .tokens = counts[1],
                    .padded_tokens = plan_.parallel.global * plan_.parallel.sequence_length};
  if (counts[0] == 0) result.outcome = Outcome::no_supervision;
  if (!result.is_skipped()) {
    // 2. Forward and backward; buckets are summed over the data axis as they become whole.
    phase.next("forward and backward");
    model_.clear();
    planted_ = planted_value(step);
    play(train_, Pass::train, loss_scale_.value() / static_cast<double>(counts[0]));
    phase.next("sums of gradients");
    gradients_.finish();
    tied_.run(context_);
    gradients_.gather();
    if (offload_ != nullptr) offload_->start(model_.summed_gradients());
    // 3. Loss and norm, and with them the decision whether there is an update: made where the sums lie.
    phase.next("norm");
    sum_up(Pass::train);
    gradient_scale(context_, slice(scalars_, decision_range(plan_)), rules_.clip_grad_norm,
                   loss_scale_.value(), slice(scalars_, scale_range(plan_)));
    // 4. Update.
    const Sums sums = update({.learning_rate = result.learning_rate,
                              .beta1 = rules_.betas[0],
                              .beta2 = rules_.betas[1],
                              .epsilon = rules_.epsilon,
                              .weight_decay = rules_.weight_decay,
                              .update = updates_ + 1},
                             phase);
    result.loss = sums.loss / static_cast<double>(counts[0]);
    result.grad_norm = std::sqrt(sums.squares) / loss_scale_.value();
    // The very number that the update went by, made from sums that have the same bits on every rank.
    const bool is_updated = !std::isnan(sums.scale);
    if (!is_updated)
      result.outcome = loss_scale_.may_shrink() ? Outcome::scale_overflow : Outcome::not_finite;
    loss_scale_.note(is_updated);
    result.loss_scale = loss_scale_.value();
    updates_ += is_updated;
  }
  result.step_s = now_s() - begin_s;
  // Not a number on a GPU, whose host does not wait for messages.
  result.exposed_communication = (comms_.world->waited_s() - waited_before_s) / result.step_s;
  return result;
}

/// The one time that the host waits for a GPU is behind the update; if the CPU makes that, before it, and
/// then once a bucket.
Trainer::Sums Trainer::update(const AdamWStep& step, PhaseSpan& phase) {
  constexpr const char *updating = "update", *reading = "loss and norm are read";
  const FlatMemory &parameters = model_.owned_parameters(), &gradients = model_.summed_gradients();
  if (offload_ == nullptr) {
    phase.next(updating);
    optimizer_.update(context_, step, slice(scalars_, scale_range(plan_)), parameters, gradients);
    parameters_.start();
    phase.next(reading);
    return read_sums();
  }
  phase.next(reading);
  const Sums sums = read_sums();
  phase.next(updating);
  const OpNote note(ops_, {.name = "update on the host", .wait = OpWait::device});
  offload_->update(step, slice(host_scalars(), scale_range(plan_)), parameters, gradients,
                   [this](int bucket) { parameters_.start(bucket); });
  return sums;
}

/// Sums over the data axis; each of its ranks speaks once. Not on the communicator of the data axis, where
/// parameters may be under way.
void Trainer::sum_over_data(std::array<int64_t, 2>& counts) {
  if (coordinate().tensor != 0 || coordinate().pipeline != 0) counts = {};
  comms_.world->all_reduce(Tensor(counts.data(), {2}, DType::i64));
}

/// Which element of the loss a micro-batch adds to: its own where each has one, over all data ranks.
int64_t Trainer::loss_of(int micro) const {
  return plan_.losses() == 1 ? 0 : int64_t{coordinate().data} * plan_.micros + micro;
}

/// Losses and square sum of the gradients over the mesh, each part once: the losses lie on the last stage's
/// first tensor ranks.
void Trainer::sum_up(Pass pass) {
  fill(context_, scalars_, 0);
  if (model_.loss() && coordinate().tensor == 0)
    copy(context_, model_.loss(), slice(scalars_, losses_range(plan_)));
  const Tensor squares = slice(scalars_, squares_range(plan_));
  if (pass == Pass::train && plan_.exact_bins() > 0) {
    optimizer_.exact_sum_of_squares(context_, model_.summed_gradients(), bins_);
    comms_.world->all_reduce(slice(scalars_, losses_range(plan_)));
    comms_.world->all_reduce(bins_);
    return exact_total(context_, bins_, squares);
  }
  if (pass == Pass::train) optimizer_.sum_of_squares(context_, model_.summed_gradients(), squares);
  comms_.world->all_reduce(slice(scalars_, sums_range(plan_)));
}

Tensor Trainer::host_scalars() const {
  return {host_scalars_.data(), {num_scalars(plan_)}, DType::f64};
}

Trainer::Sums Trainer::read_sums() {
  const Tensor host = host_scalars();
  transfer(context_, scalars_, host);
  if (context_.stream != nullptr) {
    const OpNote note(ops_, {.name = "wait for the device", .wait = OpWait::device});
    context_.stream->synchronize();
  }
  const auto numbers = host.span<const double>();
  Sums sums{.squares = numbers[static_cast<size_t>(plan_.losses())],
            .scale = numbers[static_cast<size_t>(scale_range(plan_).begin)]};
  for (double loss : numbers.first(static_cast<size_t>(plan_.losses()))) sums.loss += loss;
  return sums;
}

}  // namespace ptrain
