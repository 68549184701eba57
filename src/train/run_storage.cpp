#include <set>

#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/parts.h"
#include "src/train/best_model.h"
#include "src/train/run.h"

namespace ptrain {
namespace {

StorageWish wish_of(Config::Storage storage) {
  switch (storage) {
    case Config::Storage::shared:
      return StorageWish::shared;
    case Config::Storage::per_node:
      return StorageWish::per_node;
    case Config::Storage::automatic:
      break;
  }
  return StorageWish::automatic;
}

}  // namespace

/// Whose disk is whose, and that this run may write to each.
void Run::find_storage() {
  const std::span<const std::string> hosts = environment_.hosts;
  const bool is_one_host = std::set<std::string>(hosts.begin(), hosts.end()).size() <= 1;
  Disks disks = one_disk(world_.size());
  if (is_one_host && !hosts.empty()) disks.names = {hosts[0]};
  if (!is_one_host) disks = find_disks(world_, hosts, output_);
  StorageChoice choice;
  agreed(world_, [&] {
    choice = choose_storage(wish_of(config_.checkpoint.storage), hosts, disks,
                            loaded_.where("checkpoint.storage"), output_);
    const int replicas = config_.checkpoint.replicas;
    check(replicas == 1 || disks.count() > 1, ExitCode::usage,
          "{} = {} needs as many disks, but there is one: {}; set it to 1",
          loaded_.where("checkpoint.replicas"), replicas, choice.why);
  });
  storage_.emplace(world_, choice.kind, disks);
  agreed(world_, [&] {
    if (is_first() || !storage_->is_first_of_disk()) return;
    lock_ = RunLock(output_, environment_.job);
    std::filesystem::remove(output_ / "failure.json");
  });
  if (config_.checkpoint.replicas > 1 && storage_->firsts() != nullptr)
    replica_.emplace(*storage_->firsts(), output_ / "checkpoints", config_.checkpoint.keep);
  if (!is_first() || is_one_host) return;
  const bool is_per_node = choice.kind == StorageKind::per_node;
  log::info("storage: {}: {}", is_per_node ? "per_node" : "shared", choice.why);
  if (is_per_node && config_.checkpoint.replicas == 1 && !config_.checkpoint.upload) {
    log::warn(
        "the loss of a node's disk is not survived: its part of every checkpoint is lost with it; set "
        "checkpoint.replicas to 2, or checkpoint.upload");
  }
}

SavePart Run::part_of_checkpoint() const {
  if (storage_->kind() == StorageKind::shared) return {.group = world_};
  const Disks& disks = storage_->disks();
  return {.group = storage_->group(),
          .index = storage_->disk(),
          .of = disks.count(),
          .host = disks.names[static_cast<size_t>(storage_->disk())]};
}

std::string Run::name_of_save() const {
  if (storage_->kind() == StorageKind::shared) return "";
  return broadcast_text(world_, new_save_name(), 0);
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
