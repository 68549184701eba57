// Reading the launcher's variables and ordering the ranks: the parts of a session that need no MPI.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>

#include "parallel/comm/session.h"

namespace ptrain {
namespace {

// A variable's value as a number; -1 where it is missing or no number.
int number_of(const char* text) {
  int number = -1;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), number);
  return number;
}

}  // namespace

Launcher find_launcher(const std::function<const char*(const char*)>& environment) {
  struct Names {
    const char* launcher;
    const char* ranks;
    const char* rank;
  };
  // mpirun's own come first: inside a Slurm job it is srun that starts its helpers, and their variables show.
  static constexpr Names known[] = {{"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                    {"mpiexec", "PMI_SIZE", "PMI_RANK"},
                                    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}};
  for (const Names& names : known) {
    const int ranks = number_of(environment(names.ranks));
    const int rank = number_of(environment(names.rank));
    if (ranks < 1 || rank < 0) continue;
    const bool is_srun = std::strcmp(names.launcher, "srun") == 0;
    return {names.launcher, ranks, rank, !is_srun || environment("PMIX_RANK") != nullptr};
  }
  return {};
}

std::vector<int> ranks_by_host(std::span<const Seat> seats) {
  std::vector<int> order(seats.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const Seat& first = seats[static_cast<size_t>(a)];
    const Seat& second = seats[static_cast<size_t>(b)];
    return std::pair(first.host_leader, first.local_rank) < std::pair(second.host_leader, second.local_rank);
  });
  std::vector<int> new_rank(seats.size());
  for (size_t place = 0; place < order.size(); ++place) {
    new_rank[static_cast<size_t>(order[place])] = static_cast<int>(place);
  }
  return new_rank;
}

}  // namespace ptrain
