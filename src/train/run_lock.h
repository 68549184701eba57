// Who owns an output directory: one run at a time, on any host. Not for what lies in it (store).
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

namespace ptrain {

/// How an owner shows that it lives where the file system's locks cannot tell.
struct LockPatience {
  std::chrono::milliseconds beat{5000};  // its sign of life
  int beats = 6;                         // without one it is dead
  /// How long a lock that the kernel refuses is asked for again where the owner is on another host: there the
  /// last processes of a job that was killed may outlive its mpirun.
  std::chrono::milliseconds ending{2000};
};

/// Holds the output directory for this run, on rank 0 alone: a lock of the kernel on <output>/.lock, which
/// ends with the process, so that a dead owner's is simply taken. Where the owner was on another host that
/// may say nothing (locks of a network file system may be the client's own, or not be there): so the owner
/// also writes a sign of life into the file, from a thread of its own, and who finds the lock free but the
/// file not signed off looks for some beats whether it still comes. Errors: ExitCode::usage when another run
/// holds it, with that run's host, pid and job; resources when unwritable.
class RunLock {
 public:
  RunLock();
  RunLock(const std::filesystem::path& output, const std::string& job, const LockPatience& patience = {});
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;
  /// Signs off.
  ~RunLock();

 private:
  class Held;
  std::unique_ptr<Held> held_;
};

}  // namespace ptrain
