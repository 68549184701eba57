// One process's part in a job: starts and ends MPI, knows the hosts, ends the job when a rank fails.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// What the environment says of the launcher. Looks up variables with `environment` (launch/ passes getenv).
struct Launcher {
  int ranks = 1;     // how many ranks the launcher says it started
  std::string name;  // "mpirun" or "srun"; empty: the process was started by hand
};
Launcher find_launcher(const std::function<const char*(const char*)>& environment);

/// An Error that all ranks have agreed on: each leaves in order with its code, and one of them speaks.
class AgreedError : public Error {
 public:
  AgreedError(const Error& error, bool is_speaker) : Error(error), is_speaker_(is_speaker) {}

  bool is_speaker() const { return is_speaker_; }

 private:
  bool is_speaker_;
};

/// A collective: tells every rank whether one has an error. Returns where none has; else throws an
/// AgreedError on every rank, with the code and text of the lowest rank that has one.
void agree(Communicator& world, const std::optional<Error>& mine);
/// Runs `work`, which must not communicate, on every rank; an Error of any becomes an AgreedError of all.
void agreed(Communicator& world, const std::function<void()>& work);

/// MPI from start to end. One per process, on the main thread, which alone calls MPI.
class Session {
 public:
  /// A world of one without MPI where no launcher was found.
  /// Errors: ExitCode::usage when the launcher names more ranks than the MPI world has.
  explicit Session(const Launcher& launcher);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  /// All ranks, those of a host side by side: sorted by (host, rank on the host).
  Communicator& world();
  int local_rank() const;                         // among the ranks on this host
  int ranks_on_node() const;                      // this host's
  const std::vector<std::string>& hosts() const;  // of each rank of world()

  /// Ends the whole job now, from any rank, with this exit code; the message goes to stderr once, from here.
  [[noreturn]] void abort(ExitCode code, std::string_view message);

  /// Runs the program and returns its exit code. What it throws ends the job: an AgreedError in order, with
  /// one rank speaking; anything else by abort() with this rank's text.
  int run(const std::function<int()>& program);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ptrain
