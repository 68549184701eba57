#include "launch/threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "kernels/base/error.h"

namespace ptrain {

ThreadChoice threads_of_rank(const char* omp_num_threads, int allowed_cores, int cores, int ranks_on_node) {
  check(allowed_cores >= 1 && cores >= 1 && ranks_on_node >= 1, "{} of {} cores for {} ranks", allowed_cores,
        cores, ranks_on_node);
  if (omp_num_threads != nullptr && *omp_num_threads != '\0') {
    const char* end = omp_num_threads + std::strlen(omp_num_threads);
    int threads = 0;
    const auto [stop, error] = std::from_chars(omp_num_threads, end, threads);
    // A list ("4,2") is for nested regions, of which there are none.
    const bool is_number = error == std::errc{} && (stop == end || *stop == ',');
    check(is_number && threads >= 1 && threads <= 4096, ExitCode::usage,
          "OMP_NUM_THREADS = \"{}\" is not a number of threads; set it to 1 or more, or unset it",
          omp_num_threads);
    return {threads, ""};
  }
  const int share = std::max(1, cores / ranks_on_node);
  ThreadChoice choice{std::min(allowed_cores, share), ""};
  if (allowed_cores < share) {
    choice.warning = fmt::format(
        "this rank may use {} of the {} cores that are its share ({} cores, {} rank{} on this node); start "
        "with "
        "mpirun --bind-to none",
        allowed_cores, share, cores, ranks_on_node, ranks_on_node == 1 ? "" : "s");
  }
  return choice;
}

int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return machine_cores();
  return std::max(1, CPU_COUNT(&set));
}

int machine_cores() {
  return std::max(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

}  // namespace ptrain
