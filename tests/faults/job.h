// A run under mpirun whose ranks can be reached one by one, and what its output directory says from outside.
#pragma once

#include <optional>

#include "tests/launch/tiny_run.h"

namespace ptrain::faults {

/// What mpirun needs in its environment: any user, more ranks than cores, as little waiting as can be.
std::vector<std::string> job_variables();

/// mpirun with ptrain on its ranks, on a configuration of its own: words[0].
class Job {
 public:
  /// Ranks that outlive another one end `linger` later: at once, or after Open MPI's own two seconds.
  enum class Linger { none, two_seconds };
  Job(int ranks, const std::vector<std::string>& words, const std::vector<std::string>& variables = {},
      Linger linger = Linger::none);

  double start_time() const { return start_time_; }  // Unix seconds
  pid_t mpirun() const { return program_.pid(); }
  /// The process of a rank once ptrain runs in it; 0 before and after.
  pid_t process_of(int rank) const;
  /// Kills a rank as soon as it is there; false where the job ends before.
  bool kill_rank(int rank);
  /// Kills a rank as soon as another one stands still (SIGSTOP).
  bool kill_rank_when_stopped(int rank, int stopped);
  bool has_ended() { return program_.has_ended(); }
  std::string err_so_far() const { return program_.so_far().err; }
  /// Waits for mpirun's end, and for that of all ranks.
  ProgramResult wait();

 private:
  std::string own_word_;  // no other process has it on its command line: the configuration's path
  double start_time_;
  RunningProgram program_;
};

/// A line of metrics.jsonl with the parts that do not depend on the clock as one text.
struct Row {
  int64_t step = 0;
  double time = 0;
  std::string numbers;
};
/// The steps' rows; a torn last line is left out.
std::vector<Row> rows_of(const std::filesystem::path& output);

/// What lies in a directory of checkpoints, every byte read and checked.
struct Inventory {
  std::optional<int64_t> newest;         // whole
  std::optional<int64_t> in_the_making;  // .tmp-step-N, the highest
  std::vector<std::string> damaged;      // step-N that is not whole, with the reason
};
Inventory take_inventory(const std::filesystem::path& checkpoints);

/// Waits, at most ten minutes, until `condition` holds; says whether it does.
bool wait_until(const std::function<bool()>& condition);

std::vector<std::string> joined(std::vector<std::string> words, const std::vector<std::string>& more);

}  // namespace ptrain::faults
