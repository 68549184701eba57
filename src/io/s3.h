// Objects in S3, by a program that knows how: s5cmd, else aws or rclone. Lists, puts, gets, reads and
// removes; what must come first and when something counts as there is for upload.h and fetch.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

namespace ptrain {

/// Whether it begins with s3://.
bool is_s3(std::string_view path);

/// For what reads a model's directory on a disk. Errors: ExitCode::usage where it is in S3, with what to do.
void refuse_s3(const std::filesystem::path& directory);

/// "s3://bucket/prefix" as given, without slashes at its end. Errors: ExitCode::usage with `where` in front:
/// no bucket, empty or dotted parts, patterns, and characters that programs read differently.
std::string s3_place(std::string_view text, std::string_view where);

/// Whether a name that a listing gave may become a file below a directory of ours: plain parts of at most 255
/// characters, at most 8 of them, none that begins with a dot.
bool is_plain_path(std::string_view name);

struct S3Tool {
  enum class Kind { s5cmd, aws, rclone };
  Kind kind = Kind::s5cmd;
  std::string path;
};

/// The best one on the search path. Errors: ExitCode::usage where there is none: `where`, and what to
/// install.
S3Tool find_s3_tool(std::string_view search_path, std::string_view where);

struct S3Limits {
  int tries = 5;
  double first_pause_s = 1;  // after the first failed try; then twice as long each time
  double try_s = 120;        // a try may take so long, and
  double slowest_bytes_per_s =
      1e6;  // for each byte as long as at this rate (half of upload_bytes_per_s if less)
  double upload_bytes_per_s = 0;  // no faster up; 0 = as fast as it goes
};

/// Names below a place and their bytes.
using S3Listing = std::map<std::string, int64_t>;

/// One try of one thing each. Errors: ExitCode::usage for what waiting does not cure (no such bucket, no
/// access, no credentials), else resources; both say what the program said, secrets masked. May be used from
/// several threads.
class S3 {
 public:
  S3(S3Tool tool, S3Limits limits) : tool_(std::move(tool)), limits_(limits) {}

  /// All objects below place + "/", by the rest of their names. None is no error.
  S3Listing list(const std::string& place, std::stop_token stop = {}) const;
  void put(const std::filesystem::path& file, const std::string& object, std::stop_token stop = {}) const;
  /// `bytes` is what the listing said; another length is an error.
  void get(const std::string& object, const std::filesystem::path& file, int64_t bytes,
           std::stop_token stop = {}) const;
  /// A small object's bytes.
  std::string read(const std::string& object, std::stop_token stop = {}) const;
  void remove(const std::string& object, std::stop_token stop = {}) const;

  /// Runs `work` until it throws no Error of resources, at most limits().tries times, with growing pauses.
  /// Errors: the last one; usage at once.
  void retry(const std::function<void()>& work, std::stop_token stop = {}) const;

  const S3Limits& limits() const { return limits_; }
  const S3Tool& tool() const { return tool_; }

 private:
  S3Tool tool_;
  S3Limits limits_;
};

/// Sleeps, unless stopped. Returns whether it slept to the end.
bool sleep_unless(std::stop_token stop, double seconds);

}  // namespace ptrain
