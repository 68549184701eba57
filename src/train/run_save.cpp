#include "src/train/run.h"

#include "parallel/comm/agree.h"
#include "src/io/checkpoint_saver.h"
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

void Run::keep_as_model() {
  save_model(world_, config_.model.path, output_ / "model", *trainer_, file_dtype_);
}

/// <output>/model as the newest checkpoint's own files: hard links, or copies where the disk has none.
void Run::link_model() {
  agreed(world_, [&] {
    if (is_first()) link_hf_files(last_checkpoint_, output_ / "model");
  });
}

}  // namespace ptrain
