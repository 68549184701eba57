// Runs a test's body on several ranks: threads of this process by default, the ranks of mpirun where
// main_mpi.cpp is linked in. Bodies are written once and serve both.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/thread_comm.h"

namespace ptrain {

/// Set by main_mpi.cpp before the tests run.
struct MpiRanks {
  Communicator* world = nullptr;
  std::function<void(const std::string&)> abort;  // ends the job: the other ranks may wait for this one
};
inline MpiRanks mpi_ranks;

/// The sizes of world to run a body on: a table for threads; the one that mpirun started for MPI.
inline std::vector<int> world_sizes(std::vector<int> by_threads = {1, 2, 3, 4, 6, 8}) {
  return mpi_ranks.world != nullptr ? std::vector{mpi_ranks.world->size()} : by_threads;
}

/// Runs body on `ranks` ranks and returns when all are done. By threads the first exception of a rank is
/// thrown here; by MPI it ends the job. Under an mpirun of more ranks the first ones run it; one of fewer
/// skips the test.
inline void run_ranks(int ranks, const std::function<void(Communicator&)>& body) {
  Communicator* world = mpi_ranks.world;
  if (world == nullptr) return run_thread_ranks(ranks, body);
  if (world->size() < ranks) GTEST_SKIP() << "needs " << ranks << " ranks, has " << world->size();
  try {
    const std::unique_ptr<Communicator> group = world->split(world->rank() < ranks ? 0 : -1, world->rank());
    if (group != nullptr) body(*group);
  } catch (const std::exception& error) {
    mpi_ranks.abort(error.what());
  }
}

}  // namespace ptrain
