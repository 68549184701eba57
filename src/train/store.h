// A run's output directory: directories that appear whole, and the rows of metrics.jsonl. Not for who owns it
// (run_lock) nor for checkpoints (src/io/checkpoint).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/io/appended_file.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// Where the directory that shall become `directory` is made: beside it, under a name that nobody takes for
/// it.
std::filesystem::path making_of(const std::filesystem::path& directory);
/// Puts what was made at making_of(directory) in the place of an older `directory`, by renames.
void replace_by_made(const std::filesystem::path& directory);

/// Whether metrics.jsonl has the evaluation of a step. One that cannot be read has none.
bool has_evaluation(const std::filesystem::path& metrics, int64_t step);

/// Appends JSON objects, one a line.
class MetricsFile {
 public:
  MetricsFile() = default;
  /// Takes out a torn last line and the rows of steps after `last_step`, then appends.
  MetricsFile(const std::filesystem::path& path, int64_t last_step);

  void append(const Json& row);

 private:
  AppendedFile file_;
};

}  // namespace ptrain
