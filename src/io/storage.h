// Which ranks see the same output directory: one disk for all, or disks of the nodes' own. Looked up once at
// the start, by small files that some write and the others look for. Not for what is written there.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// The disks that the ranks see under one path. The same value on every rank.
struct Disks {
  std::vector<int> of_rank;        // of each rank of the world; numbered in the order of their lowest rank
  std::vector<std::string> names;  // of each disk: a host that sees it, for messages

  int count() const { return static_cast<int>(names.size()); }
  int first_rank(int disk) const;
  /// Ranks that see a disk, ascending.
  std::vector<int> ranks_of(int disk) const;
};

Disks one_disk(int ranks);
/// As if every host had a disk of its own. hosts: of each rank; empty = all are one host.
Disks disk_of_each_host(std::span<const std::string> hosts, int ranks);

/// A collective: the first rank of every host writes a file into `directory` (made where it is not there) and
/// looks for those of the others. Leaves no file. Errors, agreed on: ExitCode::resources: cannot be written;
/// ExitCode::usage: one host sees what another writes, but not the other way round.
Disks find_disks(Communicator& world, std::span<const std::string> hosts,
                 const std::filesystem::path& directory);

enum class StorageKind { shared, per_node };
enum class StorageWish { automatic, shared, per_node };

/// As checkpoint.storage names it.
constexpr std::string_view name_of(StorageKind kind) {
  return kind == StorageKind::per_node ? "per_node" : "shared";
}

struct StorageChoice {
  StorageKind kind = StorageKind::shared;
  std::string why;
};

/// What a wish comes to on these disks. A single host is shared unless per_node is asked for. Pure.
/// Errors: ExitCode::usage: shared on disks that are not, per_node where all hosts see one directory.
/// key, directory: for messages ("run.yaml:7: checkpoint.storage").
StorageChoice choose_storage(StorageWish wish, std::span<const std::string> hosts, const Disks& disks,
                             std::string_view key, const std::filesystem::path& directory);

/// The disks with the communicators that writing and looking at them takes.
class Storage {
 public:
  /// One disk, seen by all: what a world is where nothing else is known, so it converts.
  Storage(Communicator& world);
  /// A collective.
  Storage(Communicator& world, StorageKind kind, Disks disks);

  Communicator& world() const { return *world_; }
  StorageKind kind() const { return kind_; }
  const Disks& disks() const { return disks_; }
  int disk() const { return disks_.of_rank[static_cast<size_t>(world_->rank())]; }
  bool is_first_of_disk() const { return disks_.first_rank(disk()) == world_->rank(); }
  /// The ranks that see this rank's disk.
  Communicator& group() const { return group_ ? *group_ : *world_; }
  /// The first ranks of all disks, in the order of the disks; null on other ranks and where there is one
  /// disk.
  Communicator* firsts() const { return firsts_.get(); }

 private:
  Communicator* world_;
  StorageKind kind_ = StorageKind::shared;
  Disks disks_;
  std::unique_ptr<Communicator> group_, firsts_;
};

struct FoundStorage {
  Storage storage;
  bool is_one_host = true;
  std::string why;  // for people
};

/// A collective: what a wish comes to under `directory`. hosts, key: as above. Errors, agreed on: those of
/// find_disks and choose_storage.
FoundStorage find_storage(Communicator& world, std::span<const std::string> hosts, StorageWish wish,
                          std::string_view key, const std::filesystem::path& directory);

}  // namespace ptrain
