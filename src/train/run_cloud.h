// A run's dealings with S3: what it begins from, and where its checkpoints go. Not for how (src/io/s3,
// upload, fetch) nor for when (Run).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/io/fetch.h"
#include "src/io/storage.h"
#include "src/io/upload.h"
#include "src/train/config_load.h"

namespace ptrain {

/// Member functions are collectives where they say so. Where nothing names S3, they do nothing.
class RunCloud {
 public:
  explicit RunCloud(Communicator& world) : world_(world) {}

  /// Collective: finds the program, and says which. The first rank of each disk is its keeper: it fetches to
  /// it and uploads from it. Errors, agreed on: ExitCode::usage: no program.
  void open(const LoadedConfig& loaded, const std::filesystem::path& output, const Storage& storage,
            std::string_view search_path);

  /// Collective: model.path and the rows of data.* from S3 to <output>/inputs, and the configuration with
  /// their places there. Errors, agreed on: ExitCode::usage, input, resources.
  Config fetch_inputs(const Config& config);

  /// Collective: the newest whole checkpoint of checkpoint.upload, where it is of a later step than the
  /// newest here (0: none); a disk gets the parts that fall to it. Returns whether one came. Errors: as
  /// above; where there is one here, S3 that does not answer is a warning.
  bool fetch_newer_checkpoint(int64_t step_here);

  /// A checkpoint that was committed: on its way as soon as the older ones are. Returns at once.
  void add_checkpoint(const std::filesystem::path& checkpoint);
  /// Whether a checkpoint may be deleted here, see Uploader.
  bool may_delete(const std::filesystem::path& checkpoint);

  /// Collective, at the end of the training: uploads the model and waits for all that is on its way. Errors,
  /// agreed on: ExitCode::resources: what is not in S3.
  void finish(const std::filesystem::path& last_checkpoint, const std::filesystem::path& model);
  /// Collective, where the training was done before: the same, unless a note here says that all is there.
  void finish_done(const std::filesystem::path& last_checkpoint, const std::filesystem::path& model);
  /// Collective, where the run was asked to stop: waits for the checkpoints; a failure is a warning.
  void finish_stopped();

 private:
  bool is_uploading() const { return !place_.empty(); }
  std::filesystem::path checkpoints() const { return output_ / "checkpoints"; }
  std::vector<RemoteCheckpoint> list(int64_t step_here);
  void wait(std::string_view what);
  std::string note(const std::filesystem::path& last_checkpoint) const;

  Communicator& world_;
  std::filesystem::path output_;
  bool is_keeper_ = false;
  int disk_ = 0, disks_ = 1;
  std::string place_;     // of checkpoint.upload; empty = none
  std::optional<S3> s3_;  // of a keeper, where something names S3
  std::unique_ptr<Uploader> uploader_;
};

}  // namespace ptrain
