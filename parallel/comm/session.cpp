#include "parallel/comm/session.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <set>
#include <system_error>
#include <thread>

#include "kernels/base/host_name.h"
#include "kernels/base/log.h"
#include "parallel/comm/host_objects.h"
#include "parallel/comm/mpi_door.h"
#include "parallel/comm/self_comm.h"

namespace ptrain {
namespace {

int allowed_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

// Everybody finds the same; the launcher's first rank speaks.
[[noreturn]] void refuse(const Launcher& launcher, const std::string& text) {
  throw AgreedError(Error(ExitCode::usage, text, std::source_location::current()), launcher.rank == 0);
}

void check_world(const Launcher& launcher, int found) {
  if (launcher.ranks <= found) return;
  const std::string remedy = launcher.name == "srun"
                                 ? "start it with srun --mpi=pmix"
                                 : "start it with the mpirun of the MPI it was built with";
  refuse(launcher, fmt::format("{} started {} ranks, but {} found each other: {}", launcher.name,
                               launcher.ranks, found == 1 ? "none" : fmt::format("only {}", found), remedy));
}

}  // namespace

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  mpi_check(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  return std::string(text, std::find(text, text + length, ','));
}

struct Session::State {
  std::unique_ptr<Communicator> world;
  std::vector<std::string> hosts;
  int local_rank = 0;
  int ranks_on_node = 1;
  bool has_mpi = false;
  std::function<void(std::string_view)> on_failure;
  int exceptions_at_start = std::uncaught_exceptions();

  void start_mpi(const Launcher& launcher, const SessionOptions& options);
};

void Session::State::start_mpi(const Launcher& launcher, const SessionOptions& options) {
  // 1. The world as the launcher numbered it.
  int provided = 0;
  mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  has_mpi = true;
  int ranks = 0;
  int rank = 0;
  mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &ranks), "MPI_Comm_size");
  mpi_check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  check_world(launcher, ranks);

  // 2. The host: who else is here, and whether we have to share cores. A rank may be bound to fewer cores
  // than
  //    the host has; then those are the ones that count.
  MPI_Comm node = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  mpi_check(MPI_Comm_rank(node, &local_rank), "MPI_Comm_rank");
  mpi_check(MPI_Comm_size(node, &ranks_on_node), "MPI_Comm_size");
  int leader = rank;
  mpi_check(MPI_Bcast(&leader, 1, MPI_INT, 0, node), "MPI_Bcast");

  // 3. The world in our order.
  std::vector<Seat> seats(static_cast<size_t>(ranks));
  Seat own{leader, local_rank};
  mpi_check(MPI_Allgather(&own, 2, MPI_INT, seats.data(), 2, MPI_INT, MPI_COMM_WORLD), "MPI_Allgather");
  MPI_Comm sorted = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split(MPI_COMM_WORLD, 0, ranks_by_host(seats)[static_cast<size_t>(rank)], &sorted),
            "MPI_Comm_split");
  world = make_mpi_communicator(sorted, {.is_crowded = ranks_on_node > allowed_cores(),
                                         .max_message_bytes = options.max_message_bytes});
}

Session::Session(const Launcher& launcher, const SessionOptions& options)
    : state_(std::make_unique<State>()) {
  state_->on_failure = options.on_failure;
  if (!launcher.has_pmix && launcher.ranks > 1) check_world(launcher, 1);
  if (launcher.name.empty() || !launcher.has_pmix) {
    state_->world = make_self_communicator();
  } else {
    state_->start_mpi(launcher, options);
  }
  state_->hosts = all_gather_text(*state_->world, host_name());
}

Session::~Session() {
  // While an exception unwinds the others may be anywhere; MPI_Finalize would wait for them.
  const bool is_orderly = std::uncaught_exceptions() <= state_->exceptions_at_start;
  state_->world.reset();
  if (state_->has_mpi && is_orderly) MPI_Finalize();
}

Communicator& Session::world() {
  return *state_->world;
}

int Session::local_rank() const {
  return state_->local_rank;
}

int Session::ranks_on_node() const {
  return state_->ranks_on_node;
}

const std::vector<std::string>& Session::hosts() const {
  return state_->hosts;
}

int Session::number_of_hosts() const {
  return static_cast<int>(std::set<std::string>(hosts().begin(), hosts().end()).size());
}

void Session::abort(ExitCode code, std::string_view message) {
  const std::string& host = state_->hosts[static_cast<size_t>(state_->world->rank())];
  const std::string place = state_->world->size() > 1 ? fmt::format(" (on host {})", host) : "";
  log::write(log::Level::error, fmt::format("{}{}", message, place));  // which has the rank in front
  std::fflush(nullptr);
  if (state_->on_failure) state_->on_failure(message);
  if (state_->has_mpi) {
    // Once an abort has begun the launcher may no longer pass on what was written.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  }
  std::_Exit(static_cast<int>(code));
}

int Session::run(const std::function<int()>& program) {
  try {
    return program();
  } catch (const AgreedError& error) {
    const bool is_of_host = number_of_hosts() > 1 && error.found_by() == AgreedError::FoundBy::some;
    const std::string& host = state_->hosts[static_cast<size_t>(state_->world->rank())];
    const std::string place = is_of_host ? fmt::format(" (on host {})", host) : "";
    if (error.is_speaker()) log::write(log::Level::error, fmt::format("{}{}", error.what(), place));
    if (state_->on_failure) state_->on_failure(error.what());
    return static_cast<int>(error.code());
  } catch (const Error& error) {
    if (error.code() != ExitCode::defect) abort(error.code(), error.what());
    abort(error.code(),
          fmt::format("{} [{}:{}]", error.what(), error.where().file_name(), error.where().line()));
  } catch (const std::bad_alloc&) {
    abort(ExitCode::resources, "no memory left on this host");
  } catch (const std::system_error& error) {
    abort(ExitCode::resources, error.what());
  } catch (const std::exception& error) {
    abort(ExitCode::defect, error.what());
  }
}

}  // namespace ptrain
