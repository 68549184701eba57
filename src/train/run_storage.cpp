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
  });
  storage_.emplace(world_, choice.kind, disks);
  agreed(world_, [&] {
    if (is_first() || !storage_->is_first_of_disk()) return;
    lock_ = RunLock(output_, environment_.job);
    std::filesystem::remove(output_ / "failure.json");
  });
  if (!is_first() || is_one_host) return;
  const bool is_per_node = choice.kind == StorageKind::per_node;
  log::info("storage: {}: {}", is_per_node ? "per_node" : "shared", choice.why);
  if (is_per_node && !config_.checkpoint.upload) {
    log::warn(
        "a node's disk that is lost takes its part of every checkpoint along; checkpoint.upload keeps them "
        "elsewhere");
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
