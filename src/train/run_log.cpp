#include "src/io/file.h"
#include "src/train/run.h"

#include <cmath>

#include "kernels/base/host_name.h"
#include "kernels/base/log.h"
#include "kernels/base/rng.h"
#include "kernels/base/secrets.h"
#include "parallel/comm/agree.h"
#include "src/io/json.h"
#include "src/train/config_write.h"
#include "src/train/device_check.h"

namespace ptrain {

namespace fs = std::filesystem;

void Run::open_logs() {
  agreed(world_, [&] {
    if (!is_first()) return;
    write_text(output_ / "config.yaml", config_yaml(loaded_.config, fs::current_path()));
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
  progress_.skipped_steps += result.is_skipped();
  if (std::isfinite(result.loss)) progress_.loss_sum += result.loss, ++progress_.losses;
  progress_.tokens += result.tokens;
  progress_.seconds += result.step_s;
  progress_.seconds_left = mean_step_s_ * static_cast<double>(steps_ - result.step);
  last_result_ = result;
  if (is_first() && environment_.show_step) environment_.show_step(result, progress_);
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
  if (!environment_.show_step) say(step_line(result, progress_));
}

/// Whether an evaluation was due at the step that this start goes on from, and a stop came before it.
bool Run::lacks_evaluation() {
  const int64_t every = config_.evaluation.every;
  if (!validation_.batches || every == 0 || done_steps_ == 0 || done_steps_ % every != 0) return false;
  int64_t is_lacking = 0;
  if (is_first()) is_lacking = !has_evaluation(output_ / "metrics.jsonl", done_steps_);
  world_.broadcast(Tensor(&is_lacking, {1}, DType::i64), 0);
  return is_lacking != 0;
}

/// The step that this start goes on from, and whether as many before it went on from there and brought
/// nothing.
void Run::note_start() {
  agreed(world_, [&] {
    if (!is_first()) return;
    const std::string run = config_yaml(config_, fs::current_path()) + to_string(plan_->mesh);
    restarts_.begin({.step = newest_step_ == any_step ? 0 : newest_step_,
                     .run = fmt::format("{:016x}", hash_of(run)),
                     .host = host_name(),
                     .time = unix_time()},
                    config_.train.max_fruitless_starts);
  });
}

void Run::note_end(const Error& error) {
  if (error.code() != ExitCode::usage && error.code() != ExitCode::input) return;
  try {
    restarts_.withdraw();
  } catch (const Error&) {
    // It counts, then; what ended the run is what is said.
  }
}

void Run::note_failure(const Error& error) const {
  const auto* agreed_error = dynamic_cast<const AgreedError*>(&error);
  const bool is_speaker = agreed_error == nullptr || agreed_error->is_speaker();
  // Where the speaker has another disk, the first rank notes it too: there people look.
  const bool speaks_for_another = !is_speaker && is_first() && storage_ && storage_->disks().count() > 1;
  if (!has_output_ || !(is_speaker || speaks_for_another)) return;
  const Json failure = {{"rank", speaks_for_another ? Json(nullptr) : Json(world_.rank())},
                        {"host", speaks_for_another ? Json(nullptr) : Json(host_name())},
                        {"phase", phase_},
                        {"step", step_},
                        {"reason", without_secrets(error.what())},
                        {"exit_code", static_cast<int>(error.code())}};
  try {
    write_text(output_ / "failure.json", failure.dump(2) + "\n");
  } catch (const Error&) {
    // The disk may be what failed; the reason is on stderr in any case.
  }
}

}  // namespace ptrain
