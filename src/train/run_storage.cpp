#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "src/train/best_model.h"
#include "src/train/config_plan.h"
#include "src/train/run.h"

namespace ptrain {

/// Whose disk is whose, and that this run may write to each.
void Run::open_storage() {
  FoundStorage found = find_storage(world_, environment_.hosts, storage_wish(config_.checkpoint.storage),
                                    loaded_.where("checkpoint.storage"), output_);
  agreed(world_, [&] {
    const int replicas = config_.checkpoint.replicas;
    check(replicas == 1 || found.storage.disks().count() > 1, ExitCode::usage,
          "{} = {} needs as many disks, but there is one: {}; set it to 1",
          loaded_.where("checkpoint.replicas"), replicas, found.why);
  });
  storage_.emplace(std::move(found.storage));
  agreed(world_, [&] {
    if (is_first() || !storage_->is_first_of_disk()) return;
    lock_ = RunLock(output_, environment_.job);
    std::filesystem::remove(output_ / "failure.json");
  });
  if (config_.checkpoint.replicas > 1 && storage_->firsts() != nullptr)
    replica_.emplace(*storage_->firsts(), output_ / "checkpoints", config_.checkpoint.keep);
  if (!is_first() || found.is_one_host) return;
  log::info("storage: {}: {}", name_of(storage_->kind()), found.why);
  if (storage_->kind() == StorageKind::per_node && config_.checkpoint.replicas == 1 &&
      !config_.checkpoint.upload) {
    log::warn(
        "the loss of a node's disk is not survived: its part of every checkpoint is lost with it; set "
        "checkpoint.replicas to 2, or checkpoint.upload");
  }
}

/// Sets out the copies of what was just saved.
void Run::copy_to_next_disk(int64_t step) {
  if (replica_) replica_->begin(step, storage_->disk());
}

/// Before the next save, whose clean-up must not meet it, and before the run leaves.
void Run::finish_copy() {
  if (replica_) replica_->finish();
}

/// The best model so far may lie on a host that was the first one then.
void Run::find_best_model() {
  if (storage_->disks().count() == 1 || !std::isfinite(best_loss_)) return;
  if (bring_best_model(*storage_, output_, best_step_)) return;
  if (is_first()) {
    log::warn(
        "the best model so far, of step {} with validation loss {:.4f}, is on no disk that this job sees; "
        "the best from here on is kept",
        best_step_, best_loss_);
  }
  best_loss_ = std::numeric_limits<double>::infinity();
}

}  // namespace ptrain
