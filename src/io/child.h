// The one door to other programs: starts one without a shell, feeds and hears it, and ends it in time. Not
// for what the programs do (bucket.h) nor for ranks, which the launcher starts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

struct ChildRequest {
  std::vector<std::string> words;   // the program's path, then its arguments
  double limit_s = 3600;            // longer, and it is ended
  std::filesystem::path input;      // a file that it reads from its stdin; empty: nothing to read
  double input_bytes_per_s = 0;     // how fast it gets it at most; 0 = as fast as it takes it
  int64_t output_bytes = 64 << 20;  // it is ended when it says more on its stdout
};

struct ChildResult {
  enum class End { by_itself, out_of_time, stopped, too_much_output };

  End end = End::by_itself;
  int code = -1;    // exit code; 128 + signal where it was killed; 127 where it could not be started
  std::string out;  // stdout
  std::string err;  // the end of stderr, secrets masked
  double seconds = 0;

  bool is_good() const { return end == End::by_itself && code == 0; }
};

/// Starts a program and waits for its end, or for the end of its time, or for `stop`: then it is told to go
/// and two seconds later killed, with all that it started. It runs at a lower priority in a process group of
/// its own, with our environment, without our files, signals and locks, and dies when we die in whatever way.
/// Pages are never copied for it (vfork), so that memory registered with a network card stays what it is.
ChildResult run_child(const ChildRequest& request, std::stop_token stop = {});

/// The first program of that name in the directories of `search_path` (as in PATH).
std::optional<std::string> find_program(std::string_view name, std::string_view search_path);

}  // namespace ptrain
