// One process's part in a job: starts and ends MPI, knows the hosts, ends the job when a rank fails.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/agree.h"
#include "parallel/comm/communicator.h"

namespace ptrain {

/// What the environment says of the launcher.
struct Launcher {
  std::string name;      // "mpirun", "mpiexec" or "srun"; empty: the process was started by hand
  int ranks = 1;         // how many the launcher started
  int rank = 0;          // which of them this process is
  bool has_pmix = true;  // srun without it starts ranks that cannot find each other
};
/// `environment` looks a variable up and gives nullptr where it is not set; launch/ passes getenv.
Launcher find_launcher(const std::function<const char*(const char*)>& environment);

/// Where a rank of the launcher runs: the lowest rank on its host, and its own place among those there.
struct Seat {
  int host_leader = 0;
  int local_rank = 0;
};
/// The new rank of each old one, so that the ranks of a host stand side by side, hosts in the order of their
/// lowest rank. Example, four ranks dealt out to two hosts in turn: 0, 2, 1, 3.
std::vector<int> ranks_by_host(std::span<const Seat> seats);

/// The MPI library as it names itself, "Open MPI v4.1.4"; needs no session.
std::string mpi_library();

struct SessionOptions {
  int64_t max_message_bytes = int64_t{1} << 30;  // longer ones travel in pieces, since MPI counts in int
  /// Told why the job ends in an error, before it does: by every rank where all know it, else by the one that
  /// fails. May be empty.
  std::function<void(std::string_view reason)> on_failure = {};
};

/// MPI from start to end. One per process, made on the main thread, which alone calls MPI.
class Session {
 public:
  /// A world of one without MPI where no launcher was found.
  /// Errors: an AgreedError (usage) when the launcher started more ranks than the MPI world has.
  explicit Session(const Launcher& launcher, const SessionOptions& options = {});
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  /// All ranks, those of a host side by side.
  Communicator& world();
  int local_rank() const;                         // among the ranks on this host
  int ranks_on_node() const;                      // on this host
  const std::vector<std::string>& hosts() const;  // of each rank of world()
  int number_of_hosts() const;

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
