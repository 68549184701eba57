// How many threads a rank uses.
#pragma once

#include <string>
#include <string_view>

namespace ptrain {

struct ThreadChoice {
  int threads = 1;
  std::string warning;  // empty, or what is wrong and what to do
};

/// OMP_NUM_THREADS if set (its first number), else min(allowed cores, cores / ranks on the node), at least 1.
/// A rank that is bound to fewer cores than its share gets a warning that names --bind-to none.
/// Errors: ExitCode::usage for an OMP_NUM_THREADS that is no positive number.
///
/// 8 cores, 2 ranks, 8 allowed: 4. The same with 1 allowed: 1, with a warning.
ThreadChoice threads_of_rank(const char* omp_num_threads, int allowed_cores, int cores, int ranks_on_node);

/// Cores that this process may run on, and cores of the machine.
int allowed_cores();
int machine_cores();

}  // namespace ptrain
