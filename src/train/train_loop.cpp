#include "src/train/train_loop.h"

#include <chrono>
#include <limits>
#include <memory>

#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "src/train/config_check.h"
#include "src/train/config_write.h"
#include "src/train/device_check.h"
#include "src/train/metrics.h"
#include "src/train/model_files.h"
#include "src/train/plan_choice.h"
#include "src/train/resume.h"
#include "src/train/run_data.h"
#include "src/train/state_files.h"
#include "src/train/store.h"
#include "src/train/tensorboard.h"
#include "src/train/trace.h"
#include "src/train/trainer.h"
#include "src/train/weight_check.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// One run, from its first look at the configuration to the model on disk. Every member function is a
/// collective.
class Run {
 public:
  Run(const LoadedConfig& loaded, const RunEnvironment& environment)
      : loaded_(loaded),
        config_(loaded.config),
        environment_(environment),
        world_(environment.world),
        output_(config_.output) {}

  ExitCode go();
  /// <output>/failure.json: who failed, where and why. Written by the rank that speaks, once the output is
  /// this run's.
  void note_failure(const Error& error) const;

 private:
  bool is_first() const { return world_.rank() == 0; }
  bool is_logged(int64_t step) const { return step % config_.log.every == 0 || step == steps_; }
  Tracer* tracer() { return trace_ ? &trace_->tracer() : nullptr; }
  void enter(std::string_view phase) { phase_ = phase; }
  void say(std::string_view line) const {
    if (is_first()) environment_.say(line);
  }

  void claim_output();
  void read_model();
  void open_data();
  bool look_for_checkpoint();
  void build_trainer();
  void load_model();
  void resume();
  void open_logs();
  bool train();
  void save(int64_t step);
  bool is_stop_wanted();
  void log(const StepResult& result);
  void evaluate(int64_t step);
  void keep_as_model();
  void link_model();

  const LoadedConfig& loaded_;
  const Config& config_;
  const RunEnvironment& environment_;
  Communicator& world_;
  fs::path output_;
  RunLock lock_;
  ModelSpec spec_;
  std::optional<Plan> plan_;
  std::optional<HfDir> weights_;   // where they are not drawn at random
  DType file_dtype_ = DType::f32;  // of the safetensors that are written
  std::optional<TextEncoder> encoder_;
  RunData training_, validation_;
  std::optional<RunTrace> trace_;  // outlives the trainer, which notes into it
  std::optional<Trainer> trainer_;
  int64_t steps_ = 0;
  int64_t newest_step_ = std::numeric_limits<int64_t>::max() - 1;  // of the newest whole checkpoint
  int64_t done_steps_ = 0;                                         // of an earlier start
  MetricsFile metrics_;
  TensorBoard tensorboard_;
  RunProgress progress_;
  double mean_step_s_ = 0;
  Json identity_;
  double best_loss_ = std::numeric_limits<double>::infinity();
  fs::path last_checkpoint_;
  std::string_view phase_ = "start";  // for failure.json, as the next
  int64_t step_ = 0;
  bool has_output_ = false;
};

void Run::claim_output() {
  agreed(world_, [&] {
    check_config(loaded_, {.ranks = world_.size(), .hosts = environment_.hosts});
    refuse_unbuilt(loaded_);
    if (!is_first()) return;
    if (loaded_.is_set("checkpoint.asynchronous") && config_.checkpoint.asynchronous) {
      log::warn("{}: training waits while a checkpoint is written; saving behind its back is not built yet",
                loaded_.where("checkpoint.asynchronous"));
    }
    std::error_code error;
    fs::create_directories(output_, error);
    check(!error, ExitCode::resources, "output: {} cannot be made: {}", output_.string(), error.message());
    lock_ = RunLock(output_, environment_.job);
    fs::remove(output_ / "failure.json");
  });
  has_output_ = true;
}

/// The headers of the weights too, long before the weights: what is wrong there is found at once.
void Run::read_model() {
  const Device& device = environment_.device.context.device;
  const Hardware room = room_of_ranks(world_, device, config_, environment_.hosts);
  agreed(world_, [&] {
    spec_ = read_model_spec(config_.model.path);
    auto [plan, why] =
        chosen_plan(config_, spec_, world_.size(), compute_of(config_, found_device(device)), room);
    plan_ = std::move(plan);
    if (is_first() && !why.empty()) log::info("{}", why);
    if (config_.model.init == Config::Init::pretrained) {
      weights_ = HfDir::open(config_.model.path);
      const std::vector<std::string> unused = check_weights(spec_, *weights_);
      if (is_first()) warn_of_unused(*weights_, unused);
    }
    file_dtype_ = checkpoint_dtype(config_);
    encoder_.emplace(config_.model.path, spec_, config_.data.mask_prompt);
  });
}

void Run::open_data() {
  const fs::path cache = output_ / "data";
  const int data = plan_->mesh.data;
  training_ = open_run_data(config_, config_.data.train, "data.train", *encoder_, spec_, data, true, cache,
                            environment_.device.context.threads, world_);
  if (!config_.data.validation.empty()) {
    validation_ = open_run_data(config_, config_.data.validation, "data.validation", *encoder_, spec_, data,
                                false, cache, environment_.device.context.threads, world_);
  }
  steps_ = config_.train.steps.value_or(training_.batches->steps(config_.train.epochs));
  const PackingCounts counts = training_.batches->counts();
  if (is_first()) {
    log::info("data: {} documents, {} tokens; split {}, truncated {}, dropped {}, empty {}", counts.documents,
              counts.tokens, counts.split, counts.truncated, counts.dropped, counts.empty);
  }
}

void Run::build_trainer() {
  if (is_first())
    for (const std::string& line : environment_.banner) log::info("{}", line);
  check_memory(world_, *plan_, environment_.device, environment_.hosts);
  trainer_.emplace(spec_, config_.optimizer, *plan_, world_, environment_.device);
  if (environment_.after_connecting) environment_.after_connecting();
  progress_ = {.steps = steps_,
               .flops_per_token = training_flops_per_token(spec_, config_.data.sequence_length),
               .peak_flops = environment_.peak_flops};
  if (is_first()) {
    log::info("{}: {:.1f} million parameters on {} ranks: {}; {} steps of {} rows of {} tokens", spec_.family,
              static_cast<double>(parameter_count(spec_)) / 1e6, world_.size(), to_string(plan_->mesh),
              steps_, config_.batch.global, config_.data.sequence_length);
  }
}

void Run::load_model() {
  if (config_.model.init == Config::Init::random)
    return initialise_weights(static_cast<uint64_t>(config_.train.seed), *trainer_);
  load_weights(world_, *weights_, *trainer_);
}

/// Refuses a checkpoint of another run before anything large is made. True where nothing is left to do.
bool Run::look_for_checkpoint() {
  int64_t is_finished = 0;
  agreed(world_, [&] {
    if (!is_first()) return;
    identity_ = run_identity(config_, *training_.dataset);
    const auto newest = find_newest(output_ / "checkpoints");
    if (!newest) return;
    check_resume(newest->manifest.run, identity_, newest->step);
    newest_step_ = newest->step;
    is_finished = newest->step >= steps_ && fs::exists(output_ / "model" / "config.json");
  });
  world_.broadcast(Tensor(&newest_step_, {1}, DType::i64), 0);
  world_.broadcast(Tensor(&is_finished, {1}, DType::i64), 0);
  return is_finished != 0;
}

void Run::resume() {
  const auto accept = [&](const Manifest& manifest) {
    if (is_first()) check_resume(manifest.run, identity_, manifest.step);
  };
  std::optional<FoundCheckpoint> found;
  {
    HostState state(*trainer_);
    found = resume_newest(world_, output_ / "checkpoints", slices_to_load(*trainer_, state), accept,
                          newest_step_ + 1);
    if (found) state.put();
  }
  if (!found) return load_model();
  done_steps_ = found->step;
  last_checkpoint_ = found->path;
  trainer_->set_updates(found->manifest.run.value("updates", found->step));
  if (found->manifest.run.contains("loss_scale")) {
    const Json& scale = found->manifest.run["loss_scale"];
    trainer_->loss_scale().restore(scale.at(0).get<double>(), scale.at(1).get<int64_t>());
  }
  progress_.skipped_steps = found->step - trainer_->updates();
  if (found->manifest.run.contains("best_loss")) best_loss_ = found->manifest.run["best_loss"].get<double>();
  if (!is_first()) return;
  warn_of_changes(found->manifest.run, identity_, done_steps_);
  log::info("goes on after step {} from {}", done_steps_, found->path.string());
}

void Run::open_logs() {
  agreed(world_, [&] {
    if (!is_first()) return;
    write_text(output_ / "config.yaml", config_yaml(config_, fs::current_path()));
    metrics_ = MetricsFile(output_ / "metrics.jsonl", done_steps_);
    if (config_.log.tensorboard) tensorboard_ = TensorBoard(output_, unix_time());
  });
  if (!config_.log.trace) return;
  const bool is_cpu = environment_.device.context.device.kind == DeviceKind::cpu;
  trace_.emplace(world_, output_ / "trace.json",
                 TraceSeat{.rank = world_.rank(), .at = trainer_->coordinate(), .host = host_name()},
                 host_clock(), is_cpu ? SpanTimes::happened : SpanTimes::enqueued,
                 trainer_->spans_of_a_step());
  trainer_->set_tracer(tracer());
}

void Run::log(const StepResult& result) {
  const int64_t ran = result.step - done_steps_;
  mean_step_s_ += (result.step_s - mean_step_s_) / static_cast<double>(std::min<int64_t>(ran, 50));
  progress_.skipped_steps += result.is_skipped;
  progress_.seconds_left = mean_step_s_ * static_cast<double>(steps_ - result.step);
  if (!is_logged(result.step)) return;
  StepResult everywhere = result;
  everywhere.exposed_communication = mean_over(world_, result.exposed_communication);
  // A GPU is slow to tell, and nothing changes there once the libraries have met every shape.
  const Device device = environment_.device.context.device;
  if (device.kind == DeviceKind::cpu || ran <= 3 || result.step == steps_)
    progress_.peak_memory_bytes = peak_memory_bytes(world_, device);
  if (!is_first()) return;
  const double time = unix_time();
  metrics_.append(metrics_row(everywhere, progress_, time));
  progress_.checkpoint_stall_s = 0;
  tensorboard_.write(time, result.step,
                     {{"train/loss", result.loss},
                      {"train/grad_norm", result.grad_norm},
                      {"train/lr", result.learning_rate}});
  say(step_line(result, progress_));
}

void Run::evaluate(int64_t step) {
  enter("evaluating");
  const PhaseSpan phase(tracer(), "evaluate");
  const Evaluation evaluation =
      trainer_->evaluate(*validation_.batches, validation_.batches->steps_per_epoch(0));
  if (is_first()) {
    metrics_.append({{"step", step},
                     {"eval_loss", std::isfinite(evaluation.loss) ? Json(evaluation.loss) : Json(nullptr)},
                     {"eval_supervised_tokens", evaluation.supervised_tokens}});
    tensorboard_.write(unix_time(), step, {{"eval/loss", evaluation.loss}});
  }
  say(fmt::format("step {}/{}  validation loss {:.4f} over {} supervised tokens", step, steps_,
                  evaluation.loss, evaluation.supervised_tokens));
  const bool keeps_best = config_.evaluation.every > 0 && config_.evaluation.keep_best;
  if (keeps_best && evaluation.loss < best_loss_) {
    best_loss_ = evaluation.loss;
    keep_as_model();
  }
  enter("training");
}

void Run::save(int64_t step) {
  enter("saving a checkpoint");
  const PhaseSpan phase(tracer(), "checkpoint");
  const double begin = unix_time();
  Json run = identity_;
  run["updates"] = trainer_->updates();
  if (trainer_->loss_scale().is_used)
    run["loss_scale"] = {trainer_->loss_scale().value(), trainer_->loss_scale().good_steps()};
  HostState state(*trainer_);
  state.get();
  if (std::isfinite(best_loss_)) run["best_loss"] = best_loss_;
  last_checkpoint_ = save_checkpoint(world_,
                                     {.root = output_ / "checkpoints",
                                      .source = config_.model.path,
                                      .step = step,
                                      .keep = config_.checkpoint.keep,
                                      .tensors = model_tensors(*plan_, file_dtype_),
                                      .run = run},
                                     slices_to_save(*trainer_, state));
  progress_.checkpoint_stall_s = unix_time() - begin;
  enter("training");
}

bool Run::is_stop_wanted() {
  int64_t wanted = environment_.is_stop_wanted && environment_.is_stop_wanted() ? 1 : 0;
  world_.all_reduce(Tensor(&wanted, {1}, DType::i64), Reduce::max);
  return wanted != 0;
}

/// Returns false when it was asked to stop before the end.
bool Run::train() {
  for (int64_t step = done_steps_ + 1; step <= steps_; ++step) {
    step_ = step;
    if (trace_ && is_logged(step)) trace_->tracer().begin(step);
    const StepResult result = trainer_->step(*training_.batches, step, steps_);
    log(result);
    const bool is_last = step == steps_;
    const bool is_stop = !is_last && is_stop_wanted();
    const bool is_eval_due = config_.evaluation.every > 0 && step % config_.evaluation.every == 0;
    if (validation_.batches && (is_eval_due || is_last)) evaluate(step);
    const bool is_save_due = config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0;
    if (is_save_due || is_last || is_stop) save(step);
    if (trace_) trace_->write();
    if (is_stop) return false;
  }
  return true;
}

void Run::keep_as_model() {
  save_model(world_, config_.model.path, output_ / "model", *trainer_, file_dtype_);
}

/// <output>/model as the newest checkpoint's own files: hard links, or copies where the disk has none.
void Run::link_model() {
  agreed(world_, [&] {
    if (is_first()) link_hf_files(last_checkpoint_, output_ / "model");
  });
}

ExitCode Run::go() {
  claim_output();
  enter("reading the model's configuration");
  read_model();
  enter("reading the data");
  open_data();
  enter("looking for a checkpoint");
  if (look_for_checkpoint()) {
    if (is_first()) log::info("already done: the model lies in {}", (output_ / "model").string());
    return ExitCode::done;
  }
  enter("building the trainer");
  build_trainer();
  enter("loading weights");
  resume();
  enter("training");
  open_logs();
  const bool is_done = train();
  if (trace_) trace_->close();
  if (!is_done) {
    if (is_first())
      log::info("asked to stop: saved {}; the same command goes on from there", last_checkpoint_.string());
    return ExitCode::saved_on_signal;
  }
  const bool has_best = config_.evaluation.every > 0 && config_.evaluation.keep_best && validation_.batches;
  if (!has_best || !fs::exists(output_ / "model")) link_model();
  if (is_first()) log::info("done: the model lies in {}", (output_ / "model").string());
  return ExitCode::done;
}

void Run::note_failure(const Error& error) const {
  const auto* agreed_error = dynamic_cast<const AgreedError*>(&error);
  if (!has_output_ || (agreed_error != nullptr && !agreed_error->is_speaker())) return;
  const Json failure = {{"rank", world_.rank()},  {"host", host_name()},
                        {"phase", phase_},        {"step", step_},
                        {"reason", error.what()}, {"exit_code", static_cast<int>(error.code())}};
  try {
    write_text(output_ / "failure.json", failure.dump(2) + "\n");
  } catch (const Error&) {
    // The disk may be what failed; the reason is on stderr in any case.
  }
}

}  // namespace

ExitCode run_training(const LoadedConfig& loaded, const RunEnvironment& environment) {
  Run run(loaded, environment);
  try {
    return run.go();
  } catch (const Error& error) {
    run.note_failure(error);
    throw;
  }
}

}  // namespace ptrain
