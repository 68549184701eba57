#include "src/train/trainer.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "kernels/base/stream.h"
#include "kernels/ops/elementwise.h"
#include "parallel/comm/agree.h"
#include "parallel/plan/launch_order.h"
#include "src/model/host_flat.h"
#include "src/train/lr.h"

namespace ptrain {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of the step: loss and square sum of the gradients, then what multiplies the gradients.
constexpr int64_t num_scalars = 3;
constexpr Range sums_range{0, 2}, scale_range{2, 1};

Communicator* unless_alone(const std::unique_ptr<Communicator>& comm) {
  return comm != nullptr && comm->size() > 1 ? comm.get() : nullptr;
}

/// Communicators for tensors where the run computes. The order in which GPUs start their communication is
/// checked over all ranks before there is any.
MeshComms comms_for(Communicator& world, const Plan& plan, const RunDevice& device) {
  if (device.context.device.kind == DeviceKind::cpu) return make_mesh_comms(world, plan.mesh);
  agreed(world, [&] { check_launch_order(plan); });
  DeviceCommOptions options = device.comms;
  options.edges = transfer_edges(plan);
  return make_device_comms(world, plan.mesh, device.context.device, *device.context.stream, options);
}

/// Forwards of every micro-batch and their transfers; slots in turn, since nothing waits for a backward.
std::vector<Action> forward_program(const Plan& plan, int position) {
  Schedule schedule{.name = "forward", .micros = plan.micros};
  for (int p = 0; p < plan.map.positions(); ++p) {
    auto& program = schedule.programs.emplace_back();
    for (int micro = 0; micro < plan.micros; ++micro)
      program.push_back({.kind = ActionKind::forward, .micro = micro});
  }
  schedule = with_transfers(std::move(schedule), plan.map);
  auto program = schedule.programs.at(static_cast<size_t>(position));
  const int slots = plan.slots.at(static_cast<size_t>(position)).at(0);
  for (Action& action : program) action.slot = action.micro % slots;
  return program;
}

/// The weight that both ends of the pipeline hold, as a range of this stage's flat gradients.
Range tied_range(const Stage& stage) {
  for (const PlacedWeight& weight : stage.placed()) {
    if (weight.spec.role == Role::embedding || weight.spec.is_tied_copy)
      return {weight.offset, weight.box.numel()};
  }
  return {};
}

}  // namespace

/// What the pipeline's actions mean for this rank.
class Trainer::Work : public StageWork {
 public:
  Work(Trainer& trainer, Pass pass, double loss_scale)
      : trainer_(trainer), pass_(pass), loss_scale_(loss_scale) {}

  void forward(const Action& action) override {
    trainer_.stage_.load(action.slot, trainer_.staging_[static_cast<size_t>(action.micro)]);
    trainer_.stage_.forward(action.slot, pass_, loss_scale_);
    if (trainer_.shows_logits_ != nullptr && trainer_.stage_.has_head())
      trainer_.show_logits(action.slot, action.micro);
  }
  void backward(const Action& action) override {
    const FlatLayout& layout = trainer_.stage_.layout();
    trainer_.stage_.backward(action.slot, action.bucket < 0
                                              ? layout.units
                                              : layout.buckets.at(static_cast<size_t>(action.bucket)).units);
  }
  void hand(const Action& action) override {
    fail(ExitCode::defect, "{} on a rank with one stage", to_string(action));
  }
  void reduce(const Action& action) override { trainer_.sync_.start(action.bucket); }
  void add_tied(const Action&) override {
    add(trainer_.context_, trainer_.tied_, slice(trainer_.stage_.gradients(), tied_range(trainer_.stage_)));
  }
  std::span<const Tensor> tensors(const Action& action) override {
    bundle_ = tensor_of(action);
    return {&bundle_, 1};
  }

 private:
  Tensor tensor_of(const Action& action) const {
    switch (action.kind) {
      case ActionKind::send_activation:
        return trainer_.stage_.output(action.slot);
      case ActionKind::receive_activation:
        return trainer_.stage_.input(action.slot);
      case ActionKind::send_gradient:
      case ActionKind::receive_gradient:
        return trainer_.stage_.gradient(action.slot);
      case ActionKind::send_tied:
        return slice(trainer_.stage_.gradients(), tied_range(trainer_.stage_));
      case ActionKind::receive_tied:
        return trainer_.tied_;
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
      context_(device.context),
      comms_(comms_for(world, plan_, device)),
      stage_(spec, plan_, rank_, {.tensor = unless_alone(comms_.tensor)}, context_, use),
      sync_(plan_.workload, stage_.layout(), plan_.mesh, plan_.parallel.zero, coordinate().data,
            unless_alone(comms_.tensor), unless_alone(comms_.data)),
      optimizer_(stage_.layout(), stage_.placed(), plan_.parallel.zero, coordinate().data),
      train_(plan_.program(rank_), comms_.pipeline.get()),
      evaluate_(forward_program(plan_, coordinate().pipeline), comms_.pipeline.get()) {
  const int64_t tied =
      plan_.is_tied_apart && (stage_.has_embedding() || stage_.has_head()) ? tied_range(stage_).count : 0;
  context_.scratch = stage_.context().scratch;
  const StateTypes& types = plan_.parallel.types;
  Tensor m, v, master, staging;
  const auto grant = [&](const VisitTensor& each) {
    each("scalars", scalars_, {num_scalars}, DType::f64);
    if (use == Pass::evaluate) return;
    each("m", m, {optimizer_.state_elements()}, types.moments);
    each("v", v, {optimizer_.state_elements()}, types.moments);
    if (types.master != types.param) each("master", master, {optimizer_.state_elements()}, types.master);
    each("replica sums", staging, {sync_.staging_elements()}, types.grad);
    each("tied", tied_, {tied}, types.grad);
  };
  int64_t bytes = 0;
  grant(add_up(bytes));
  arena_ = Arena(bytes, context_.device);
  host_scalars_ = Buffer::staging(num_scalars * size_bytes(DType::f64), context_.device);
  grant(take_from(arena_, ""));
  // The plan that was printed is the run that happens, to the byte.
  if (use == Pass::train) {
    const int64_t planned = ledger_of(plan_, rank_).total_bytes();
    check(arena_bytes() == planned, "rank {} took {} bytes, its plan says {}", rank_, arena_bytes(), planned);
  }
  // What the step sends lies in these two. On a CPU, and staged, there is nothing to make known.
  register_memory(comms_, stage_.arena().data(), stage_.arena().capacity_bytes());
  optimizer_.bind(m, v, master);
  loss_scale_.is_used = types.param == DType::f16;
  for (int micro = 0; micro < plan_.micros; ++micro) staging_.push_back(stage_.make_staging());
  sync_.bind(stage_.gradients(), staging, context_.stream);
}

Trainer::~Trainer() = default;

void Trainer::load_rows(const Batches& batches, int64_t step) {
  rows_.clear();
  for (int micro = 0; micro < plan_.micros; ++micro) {
    const MicroBatch& rows = rows_.emplace_back(batches.micro_batch(step, coordinate().data, micro));
    stage_.fill_staging({rows.ids, rows.targets, rows.positions, rows.document_start},
                        staging_[static_cast<size_t>(micro)]);
  }
}

void Trainer::play(Pipeline& pipeline, Pass pass, double loss_scale) {
  Work work(*this, pass, loss_scale);
  const double begin_s = now_s();
  pipeline.run(work);
  double computed_s = 0;
  for (const Interval& interval : pipeline.intervals()) computed_s += interval.end_s - interval.begin_s;
  waited_s_ += std::max(0.0, now_s() - begin_s - computed_s);
}

StepResult Trainer::step(const Batches& batches, int64_t step, int64_t steps) {
  const double begin_s = now_s();
  waited_s_ = 0;
  // 1. Rows, and the number of supervised tokens of the whole step, before the first backward.
  load_rows(batches, step);
  std::array<int64_t, 2> counts{};  // supervised, tokens
  for (const MicroBatch& rows : rows_) {
    counts[0] += rows.supervised;
    counts[1] += rows.tokens;
  }
  comms_.data->all_reduce(Tensor(counts.data(), {2}, DType::i64));
  StepResult result{.step = step,
                    .learning_rate = learning_rate(rules_, step, steps),
                    .supervised_tokens = counts[0],
                    .tokens = counts[1],
                    .padded_tokens = plan_.parallel.global * plan_.parallel.sequence_length};
  result.is_skipped = counts[0] == 0;
  if (!result.is_skipped) {
    // 2. Forward and backward; buckets are summed over the data axis as they become whole.
    stage_.clear();
    play(train_, Pass::train, loss_scale_.value() / static_cast<double>(counts[0]));
    const double sync_s = now_s();
    sync_.finish();
    waited_s_ += now_s() - sync_s;
    // 3. Loss and norm, and with them the decision whether there is an update: made where the sums lie.
    sum_up(Pass::train);
    gradient_scale(context_, slice(scalars_, sums_range), rules_.clip_grad_norm, loss_scale_.value(),
                   slice(scalars_, scale_range));
    // 4. Update.
    const AdamWStep update{.learning_rate = result.learning_rate,
                           .beta1 = rules_.betas[0],
                           .beta2 = rules_.betas[1],
                           .epsilon = rules_.epsilon,
                           .weight_decay = rules_.weight_decay,
                           .update = updates_ + 1};
    optimizer_.update(context_, update, slice(scalars_, scale_range), stage_.parameters(),
                      stage_.gradients());
    exchange_parameters();
    // 5. The one time that the host waits for a GPU.
    const std::span<const double> sums = read_scalars();
    result.loss = sums[0] / static_cast<double>(counts[0]);
    result.grad_norm = std::sqrt(sums[1]) / loss_scale_.value();
    const bool is_finite = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
    check(is_finite || loss_scale_.may_shrink(), ExitCode::numerical,
          "step {}: loss {}, gradient norm {}: not finite, the weights are as before this step; look at the "
          "data of this step, or lower optimizer.learning_rate",
          step, result.loss, result.grad_norm);
    loss_scale_.note(is_finite);
    result.is_skipped = !is_finite;
    result.loss_scale = loss_scale_.value();
    updates_ += is_finite;
  }
  result.step_s = now_s() - begin_s;
  // The host of a GPU does not wait for messages: it cannot tell.
  result.exposed_communication =
      context_.stream == nullptr ? waited_s_ / result.step_s : std::numeric_limits<double>::quiet_NaN();
  return result;
}

/// Loss and square sum of the gradients over the mesh, each part once: the loss lies on the last stage's
/// first tensor ranks.
void Trainer::sum_up(Pass pass) {
  fill(context_, scalars_, 0);
  if (stage_.loss() && coordinate().tensor == 0) copy(context_, stage_.loss(), slice(scalars_, {0, 1}));
  if (pass == Pass::train) optimizer_.sum_of_squares(context_, stage_.gradients(), slice(scalars_, {1, 1}));
  comms_.world->all_reduce(slice(scalars_, sums_range));
}

std::span<const double> Trainer::read_scalars() {
  const Tensor host(host_scalars_.data(), {num_scalars}, DType::f64);
  transfer(context_, scalars_, host);
  if (context_.stream != nullptr) context_.stream->synchronize();
  return host.span<const double>();
}

void Trainer::exchange_parameters() {
  if (plan_.parallel.zero == 0 || comms_.data->size() == 1) return;
  const double begin_s = now_s();
  const FlatLayout& layout = stage_.layout();
  for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
    comms_.data->all_gather(
        slice(stage_.parameters(), shard_of(layout, static_cast<int>(bucket), coordinate().data)),
        slice(stage_.parameters(), layout.buckets[bucket].elements));
  }
  waited_s_ += now_s() - begin_s;
}

void Trainer::show_logits(int slot, int micro) {
  const int64_t V = spec_.V;
  const int tensor = plan_.mesh.tensor;
  Context host = host_context(context_);
  OwnedTensor all({stage_.dims().N, V}, DType::f32);
  stage_.logits(slot, [&](int64_t first_row, Tensor computed) {
    const int64_t rows = computed.rows();
    if (tensor == 1) return to_host(context_, computed, all.view.row_range(first_row, rows));
    const OwnedTensor own(computed.shape, DType::f32);
    const Tensor chunk = own.view;
    to_host(context_, computed, chunk);
    std::vector<int64_t> counts;
    for (int part = 0; part < tensor; ++part) counts.push_back(rows * part_of(V, part, tensor).count);
    OwnedTensor parts({rows * V}, DType::f32);
    comms_.tensor->all_gather_varied(chunk, parts.view, counts);
    int64_t begin = 0;
    for (int part = 0; part < tensor; ++part) {
      const Range ids = part_of(V, part, tensor);
      const Tensor from(parts.view.as<float>() + begin, {rows, ids.count}, DType::f32);
      copy(host, from, all.view.row_range(first_row, rows).column_range(ids.begin, ids.count));
      begin += counts[static_cast<size_t>(part)];
    }
  });
  if (coordinate().tensor == 0) (*shows_logits_)(evaluated_step_, micro, all.view);
}

Evaluation Trainer::evaluate(const Batches& batches, int64_t steps, const LogitsOf& each) {
  std::array<int64_t, 2> counts{};
  shows_logits_ = each ? &each : nullptr;
  stage_.clear();
  for (int64_t step = 1; step <= steps; ++step) {
    // A GPU may still copy the rows of the step before; of a training step it has done so.
    if (context_.stream != nullptr) context_.stream->synchronize();
    load_rows(batches, step);
    evaluated_step_ = step;
    for (const MicroBatch& rows : rows_) {
      counts[0] += rows.supervised;
      counts[1] += rows.tokens;
    }
    play(evaluate_, Pass::evaluate, 0);
  }
  shows_logits_ = nullptr;
  comms_.data->all_reduce(Tensor(counts.data(), {2}, DType::i64));
  sum_up(Pass::evaluate);
  const double loss = read_scalars()[0];
  return {.loss = counts[0] > 0 ? loss / static_cast<double>(counts[0])
                                : std::numeric_limits<double>::quiet_NaN(),
          .supervised_tokens = counts[0],
          .tokens = counts[1]};
}

}  // namespace ptrain
