// From S3 to the disk before a run begins: a model, files of rows, the newest checkpoint. Each is made beside
// its place and renamed when it is whole, so that a second start finds all or nothing. Not for who calls it:
// one rank a disk does, the others wait (src/train/run_cloud).
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/s3.h"

namespace ptrain {

/// All objects below `place` that `is_wanted` accepts, as files below `directory`. What an earlier call
/// brought is taken as it is: a note beside the directory says from where, and every file's size is looked
/// at. Errors: ExitCode::input: nothing wanted is there, names that are not plain; resources: no room, S3.
void fetch_directory(const S3& s3, const std::string& place, const std::filesystem::path& directory,
                     const std::function<bool(std::string_view)>& is_wanted, std::stop_token stop = {});

/// Whether a file of that name, at the top of a model's directory, is needed to train it.
bool is_model_file(std::string_view name, bool with_weights);

/// The objects that a pattern names, s3://bucket/prefix/NAME with * and ? in NAME alone, as files below
/// `directory`, by name; those that are there with their size are not fetched again. Errors: as above.
std::vector<std::filesystem::path> fetch_files(const S3& s3, const std::string& pattern,
                                               const std::filesystem::path& directory,
                                               std::stop_token stop = {});

/// A whole checkpoint in S3: of one part, step-00000500/MANIFEST.json, or of several, each with its own in
/// step-00000500/part-0-of-4/.
struct RemoteCheckpoint {
  int64_t step = 0;
  int parts = 1;

  bool operator==(const RemoteCheckpoint&) const = default;
};
/// Where a part lies below the place of all checkpoints.
std::string remote_name(std::string_view step_name, int part, int parts);
/// The whole ones below `place`, newest first: those on their way up have no last file yet. Errors: as above.
std::vector<RemoteCheckpoint> list_checkpoints(const S3& s3, const std::string& place,
                                               std::stop_token stop = {});
/// A part of one of them as a directory, with all its bytes outside of tensors checked. Errors: as above;
/// input where it is damaged: nothing is left then.
void fetch_part(const S3& s3, const std::string& place, const RemoteCheckpoint& checkpoint, int part,
                const std::filesystem::path& directory, std::stop_token stop = {});

/// Where a pattern's directory and name part: "s3://b/data/*.jsonl" -> "s3://b/data", "*.jsonl".
/// Errors: ExitCode::usage with `where` in front.
struct S3Pattern {
  std::string place;
  std::string name;
};
S3Pattern s3_pattern(std::string_view text, std::string_view where);

}  // namespace ptrain
