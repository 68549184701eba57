#include "src/train/run.h"

#include "parallel/comm/agree.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/part_writers.h"
#include "src/train/best_model.h"
#include "src/train/model_files.h"
#include "src/train/state_files.h"

namespace ptrain {

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
  if (std::isfinite(best_loss_)) {
    run["best_loss"] = best_loss_;
    run["best_step"] = best_step_;
  }
  SaveRequest request{.root = output_ / "checkpoints",
                      .source = config_.model.path,
                      .step = step,
                      .keep = config_.checkpoint.keep,
                      .tensors = model_tensors(*plan_, file_dtype_, storage_->disks()),
                      .run = std::move(run),
                      .save = name_of_save()};
  const MovedSlices moved(*storage_, slices_to_save(*trainer_, state), parts_of(request.tensors));
  CheckpointSaver saver(world_, part_of_checkpoint());
  saver.save(std::move(request), moved.slices());
  const std::optional<SaveOutcome> outcome = saver.take_outcome();
  if (outcome->error) throw AgreedError(*outcome->error);
  last_checkpoint_ = outcome->path;
  progress_.checkpoint_stall_s = unix_time() - begin;
  enter("training");
}

void Run::keep_as_model() {
  save_model(*storage_, config_.model.path, output_ / "model", *trainer_, file_dtype_);
  agreed(world_, [&] {
    if (is_first() && storage_->disks().count() > 1) note_model_step(output_, step_);
  });
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
