// A run's output directory: who owns it, and the rows of metrics.jsonl. Not for checkpoints
// (src/io/checkpoint).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/io/json.h"

namespace ptrain {

/// Holds the output directory for this run, on rank 0 alone. The lock is the kernel's and ends with the
/// process, so a dead owner's is simply taken. Errors: ExitCode::usage when another run holds it, with that
/// run's host, pid and job; resources when unwritable.
class RunLock {
 public:
  RunLock() = default;
  RunLock(const std::filesystem::path& output, const std::string& job);
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;
  ~RunLock();

 private:
  int fd_ = -1;
};

std::string host_name();

/// Where the directory that shall become `directory` is made: beside it, under a name that nobody takes for
/// it.
std::filesystem::path making_of(const std::filesystem::path& directory);
/// Puts what was made at making_of(directory) in the place of an older `directory`, by renames.
void replace_by_made(const std::filesystem::path& directory);

/// Appends JSON objects, one a line, each written by one write().
class MetricsFile {
 public:
  MetricsFile() = default;
  /// Takes out a torn last line and the rows of steps after `last_step`, then appends.
  MetricsFile(const std::filesystem::path& path, int64_t last_step);
  MetricsFile(MetricsFile&& other) noexcept;
  MetricsFile& operator=(MetricsFile&& other) noexcept;
  ~MetricsFile();

  void append(const Json& row);

 private:
  int fd_ = -1;
  std::string path_;
};

}  // namespace ptrain
