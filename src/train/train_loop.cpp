#include "src/train/train_loop.h"

#include <cmath>

#include "kernels/base/fault.h"
#include "kernels/base/log.h"
#include "src/io/checkpoint.h"
#include "src/io/json.h"
#include "src/train/run.h"

namespace ptrain {

namespace fs = std::filesystem;

// Of a part on its way to the next disk: what a fast disk takes in a few hundredths of a second.
constexpr int64_t copied_bytes_a_step = int64_t{64} << 20;
constexpr double copying_share = 0.01;  // of a step, for which it may be waited

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
  if (keeps_best && evaluation.loss < best_loss_ && is_kept_as_model(step)) {
    best_loss_ = evaluation.loss;
    best_step_ = step;
  }
  enter("training");
}

/// is_saving: the state of this step is to be saved.
StepVote Run::vote(bool is_saving) {
  const double begin_s = unix_time();
  StepVote mine{.is_stop_wanted = environment_.is_stop_wanted && environment_.is_stop_wanted(),
                .is_state_damaged = is_saving && !trainer_->holds_finite_state()};
  const int64_t between = config_.train.check_replicas_every;
  if (between > 0 && (is_saving || step_ % between == 0)) mine.imbalance = imbalance_of_replicas();
  mine.save = saver_->progress();
  if (is_saving) progress_.checkpoint_stall_s += unix_time() - begin_s;
  return over_ranks(world_, mine);
}

/// Returns false when it was asked to stop before the end.
bool Run::train() {
  step_ = done_steps_;
  if (lacks_evaluation()) evaluate(done_steps_);
  for (int64_t step = done_steps_ + 1; step <= steps_; ++step) {
    step_ = step;
    watch_.begin_step(step);
    fault::point("step", step);
    if (trace_ && is_logged(step)) trace_->tracer().begin(step);
    const StepResult result = take_step(step);
    watch_.end_step(result);
    log(result);
    if (goes_back(result)) {
      step = done_steps_;
      continue;
    }
    trainer_->flip_planted(step);
    watch_for_spikes(result);
    const bool is_last = step == steps_;
    is_save_owed_ |= config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0;
    const bool is_save_due = (is_save_owed_ && !judge_.is_in_doubt()) || is_last;
    StepVote all = vote(is_save_due);
    go_on_saving(all.save);
    const bool is_stop = !is_last && all.is_stop_wanted;
    const bool is_save = is_save_due || is_stop;
    if (is_save && !is_save_due) all = vote(true);
    if (all.imbalance != 0) name_replicas_that_differ();
    const bool is_eval_due = config_.evaluation.every > 0 && step % config_.evaluation.every == 0;
    // Asked to stop it saves first; the next start makes up for the evaluation.
    if (validation_.batches && (is_eval_due || is_last) && !is_stop) evaluate(step);
    const double begin_s = unix_time();
    if (is_save) {
      if (all.is_state_damaged) {
        leave_damaged_state(step);
        step = done_steps_;
        continue;
      }
      save(step, is_last || is_stop ? Saving::last : Saving::periodic);
      judge_.note_snapshot(step);
      is_save_owed_ = false;
      progress_.checkpoint_stall_s += unix_time() - begin_s;
    }
    if (replica_) replica_->advance(copied_bytes_a_step, copying_share * result.step_s);
    if (trace_) trace_->write();
    if (is_stop) return false;
  }
  return true;
}

/// Whether <output>/model is there, on the first rank's disk.
bool Run::has_model() {
  int64_t is_there = is_first() && fs::exists(output_ / "model") ? 1 : 0;
  world_.broadcast(Tensor(&is_there, {1}, DType::i64), 0);
  return is_there != 0;
}

ExitCode Run::go() {
  claim_output();
  watch_.start(loaded_, environment_.hosts);
  enter("reading the model's configuration");
  read_model();
  enter("reading the data");
  open_data();
  enter("looking for a checkpoint");
  if (look_for_checkpoint()) {
    if (is_first()) log::info("already done: the model lies in {}", (output_ / "model").string());
    cloud_.finish_done(output_ / "checkpoints" / checkpoint_name(newest_step_), output_ / "model");
    return ExitCode::done;
  }
  note_start();
  enter("building the trainer");
  build_trainer();
  enter("loading weights");
  resume();
  enter("training");
  open_logs();
  open_saver();
  const bool is_done = train();
  finish_copy();
  if (trace_) trace_->close();
  if (is_first()) log::info("{}", summary_line(last_result_, progress_));
  if (!is_done) {
    if (is_first())
      log::info("asked to stop: saved {}; the same command goes on from there", last_checkpoint_.string());
    restarts_.end();
    cloud_.finish_stopped();
    return ExitCode::saved_on_signal;
  }
  const bool has_best = config_.evaluation.every > 0 && config_.evaluation.keep_best && validation_.batches;
  enter("keeping the model");
  if (!has_best || !has_model()) link_model();
  if (is_first()) log::info("done: the model lies in {}", (output_ / "model").string());
  restarts_.end();
  enter("uploading");
  cloud_.finish(last_checkpoint_, output_ / "model");
  return ExitCode::done;
}

ExitCode run_training(const LoadedConfig& loaded, const RunEnvironment& environment) {
  Run run(loaded, environment);
  try {
    const ExitCode code = run.go();
    run.finish();
    return code;
  } catch (const Error& error) {
    run.note_failure(error);
    run.note_end(error);
    throw;
  }
}

}  // namespace ptrain
