// Finding and loading checkpoints: on one disk that all ranks see, or in parts on disks of the nodes' own,
// whichever of them has which. Damaged ones are passed over. Writing them is checkpoint.h's.
#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/io/checkpoint.h"
#include "src/io/load.h"
#include "src/io/parts.h"
#include "src/io/storage.h"

namespace ptrain {

struct FoundCheckpoint {
  std::filesystem::path path;  // <root>/step-00000500, on this rank's disk where it has a part
  int64_t step = 0;
  Manifest manifest;             // of all parts together
  std::vector<PartCopy> copies;  // that are whole; empty: `path` holds all of it, for all ranks
  std::map<std::string, int> part_of_file;
};

/// The newest whole checkpoint below a step in a directory that holds whole ones, for one process alone.
/// Damaged ones are reported with the reason and passed over. Reads no tensors.
std::optional<FoundCheckpoint> find_newest(const std::filesystem::path& root,
                                           int64_t below_step = std::numeric_limits<int64_t>::max());

/// Collective: the same over all disks: the newest step of which every part is found whole on one of them.
std::optional<FoundCheckpoint> find_newest(const Storage& storage, const std::filesystem::path& root,
                                           int64_t below_step = std::numeric_limits<int64_t>::max());

/// Collective: a checkpoint of which each disk may have a part, or a copy of one, under the path. Errors, the
/// same on all ranks: ExitCode::input: parts are missing or damaged.
FoundCheckpoint find_at(const Storage& storage, const std::filesystem::path& directory);

/// The files of a found checkpoint, as far as this rank sees them.
class FoundFiles {
 public:
  FoundFiles(const Storage& storage, const FoundCheckpoint& checkpoint)
      : storage_(storage), checkpoint_(checkpoint) {}
  /// For load_slices(). Both, and `tensors`, must outlive it. what: for messages.
  TensorSource source(std::span<const StoredTensor> tensors, std::string_view what);

 private:
  const Storage& storage_;
  const FoundCheckpoint& checkpoint_;
  std::map<std::string, File> files_;
};

/// Collective: loads what all ranks want, each byte read once, checked, and sent where it is wanted; weights
/// of which a wider copy is loaded are checked too. Returns the bytes that this rank read. Errors, agreed on:
/// ExitCode::input: damaged bytes, missing tensors, other shapes.
int64_t load_checkpoint(const Storage& storage, const FoundCheckpoint& checkpoint,
                        std::span<const StateSlice> wanted);

/// Collective: finds the newest checkpoint and loads it; one that turns out to be damaged is reported, and
/// its copies on other disks are taken, or the one before. `accept` sees the manifest before anything is
/// loaded and throws where the run must not go on from it. Nothing where there is no checkpoint. Errors:
/// ExitCode::no_checkpoint where there are some, but none is whole.
std::optional<FoundCheckpoint> resume_newest(const Storage& storage, const std::filesystem::path& root,
                                             std::span<const StateSlice> wanted,
                                             const std::function<void(const Manifest&)>& accept = {},
                                             int64_t below_step = std::numeric_limits<int64_t>::max());

/// "replica-00000500-00001": a copy of part 1 of step 500 that a disk keeps for another.
std::string replica_name(int64_t step, int part);
struct ReplicaDirectory {
  int64_t step = 0;
  int part = 0;
  std::filesystem::path path;
};
/// The directories of such names, newest first.
std::vector<ReplicaDirectory> list_replicas(const std::filesystem::path& root);

}  // namespace ptrain
