#include "src/io/json.h"
#include "src/train/run.h"

#include "kernels/base/log.h"
#include "kernels/base/rng.h"
#include "parallel/comm/agree.h"
#include "src/train/best_model.h"
#include "src/train/config_write.h"
#include "src/train/host_state.h"
#include "src/train/model_files.h"
#include "src/train/state_files.h"

namespace ptrain {

/// What every checkpoint of this start says about it, and the memory that saves behind training's back need.
void Run::open_saver() {
  if (is_first()) {
    identity_["grid"] = {{"tensor", plan_->mesh.tensor},
                         {"pipeline", plan_->mesh.pipeline},
                         {"data", plan_->mesh.data},
                         {"virtual_stages", config_.parallel.virtual_stages},
                         {"zero", plan_->zero}};
    const std::string text = config_yaml(config_, std::filesystem::current_path());
    identity_["configuration"] = fmt::format("{:016x}", hash_of(text));
  }
  agreed(world_, [&] {
    if (storage_->is_first_of_disk())
      small_files_ = small_files_of(base_, config_.model.path, encoder_->tokenizer.get());
  });
  saver_.emplace(world_, part_of_checkpoint(*storage_));
  saved_tensors_ = model_tensors(*plan_, file_dtype_, storage_->disks());
  const int64_t every = config_.checkpoint.every;
  const bool is_any_periodic = every > 0 && (done_steps_ / every + 1) * every < steps_;
  if (!config_.checkpoint.asynchronous || !is_any_periodic) return;
  agreed(world_, [&] { snapshot_.emplace(*trainer_); });
  if (is_first()) {
    log::info(
        "checkpoints are written while training goes on, from copies that take {:.1f} MB of host memory a "
        "rank",
        static_cast<double>(StateSnapshot::bytes_of(*trainer_)) / 1e6);
  }
}

SaveRequest Run::save_request(int64_t step) {
  Json run = identity_;
  run["updates"] = trainer_->updates();
  if (trainer_->loss_scale().is_used)
    run["loss_scale"] = {trainer_->loss_scale().value(), trainer_->loss_scale().good_steps()};
  if (std::isfinite(best_loss_)) {
    run["best_loss"] = best_loss_;
    run["best_step"] = best_step_;
  }
  // All that is drawn at random is a function of the seed and of what it is drawn for; there is no other
  // state.
  const Batches::Place place = training_.batches->place(step);
  run["position"] = {{"seed", config_.train.seed},
                     {"updates", trainer_->updates()},
                     {"epoch", place.epoch},
                     {"rows_of_epoch", (place.step + 1) * config_.batch.global}};
  return {.root = output_ / "checkpoints",
          .small_files = small_files_,
          .step = step,
          .keep = config_.checkpoint.keep,
          .tensors = saved_tensors_,
          .run = std::move(run),
          .save = name_of_save(*storage_),
          .may_delete = [this](const auto& path) { return cloud_.may_delete(path); }};
}

void Run::finish_save() {
  if (saver_->is_idle()) return;
  const double begin = unix_time();
  saver_->finish();
  if (is_first()) {
    log::info("training waited {:.2f} s for the save under way", unix_time() - begin);
  }
  note_saved(Saving::periodic);
}

/// At most one is under way: who comes while it is waits for it. The last one is waited for, so it needs no
/// copy of the state.
void Run::save(int64_t step, Saving saving) {
  enter("saving a checkpoint");
  const PhaseSpan phase(tracer(), "checkpoint");
  finish_save();
  finish_copy();
  SaveRequest request = save_request(step);
  const std::map<std::string, int> part_of = parts_of(request.tensors);
  if (saving == Saving::periodic && snapshot_) {
    snapshot_->take(step);
    run_of_snapshot_ = request.run;
    moved_.emplace(*storage_, snapshot_->slices(), part_of);
    saver_->begin(std::move(request), moved_->slices());
  } else {
    HostState state(*trainer_);
    state.get();
    moved_.emplace(*storage_, slices_to_save(*trainer_, state), part_of);
    saver_->save(std::move(request), moved_->slices());
    note_saved(saving);
  }
  enter("training");
}

void Run::go_on_saving(const SaveProgress& all) {
  if (saver_->is_idle()) return;
  enter("going on with a save");
  const double begin = unix_time();
  saver_->advance(all);
  note_saved(Saving::periodic);
  progress_.checkpoint_stall_s += unix_time() - begin;
  enter("training");
}

void Run::note_saved(Saving saving) {
  const std::optional<SaveOutcome> outcome = saver_->take_outcome();
  if (!outcome) return;
  moved_.reset();
  if (!outcome->error) {
    last_checkpoint_ = outcome->path;
    copy_to_next_disk(outcome->step);
    cloud_.add_checkpoint(last_checkpoint_);
    if (is_first()) log::info("saved {} in {:.2f} s", outcome->path.string(), outcome->seconds);
    return;
  }
  if (saving == Saving::last) throw AgreedError(*outcome->error);
  if (outcome->error->is_speaker()) {
    log::warn("step {} is not saved: {}. Training goes on, older checkpoints are as they were", outcome->step,
              outcome->error->what());
  }
}

void Run::keep_as_model() {
  save_model(*storage_, small_files_, output_ / "model", *trainer_, file_dtype_);
  agreed(world_, [&] {
    if (is_first() && storage_->disks().count() > 1) note_model_step(output_, step_);
  });
}

/// False where no disk could take it: the model that is there stays, and training goes on.
bool Run::is_kept_as_model(int64_t step) {
  try {
    keep_as_model();
    return true;
  } catch (const AgreedError& error) {
    if (error.code() != ExitCode::resources) throw;
    if (error.is_speaker()) {
      log::warn(
          "the best model so far, of step {}, is not kept: {}. Training goes on, an older one is as it was",
          step, error.what());
    }
    return false;
  }
}

/// <output>/model as the newest checkpoint's own files: hard links, or copies where the disk has none. From
/// several disks it is assembled.
void Run::link_model() {
  if (storage_->disks().count() > 1) return keep_as_model();
  agreed(world_, [&] {
    if (is_first()) link_hf_files(last_checkpoint_, output_ / "model");
  });
}

}  // namespace ptrain
