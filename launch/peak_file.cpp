#include "launch/peak_file.h"

#include <algorithm>

#include "launch/threads.h"

namespace ptrain {

std::optional<std::filesystem::path> peak_file(const Arguments& arguments) {
  const std::filesystem::path below = "ptrain/peak.json";
  const char* cache = arguments.variable("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/')
    return cache / below;  // a relative one is to be ignored, by its rules
  const char* home = arguments.variable("HOME");
  if (home != nullptr && *home == '/') return std::filesystem::path(home) / ".cache" / below;
  return std::nullopt;
}

namespace {

int threads_on_node(const Runtime& runtime) {
  return runtime.context.threads * runtime.session.ranks_on_node();
}

}  // namespace

PeakKey node_key(const Runtime& runtime) {
  return {.cpu = cpu_model(), .threads = std::min(threads_on_node(runtime), machine_cores())};
}

bool has_core_for_each_thread(const Runtime& runtime) {
  return threads_on_node(runtime) <= machine_cores();
}

std::optional<double> measured_peak(const Runtime& runtime) {
  std::optional<double> flops;
  if (const auto file = peak_file(runtime.arguments)) {
    if (const auto peak = read_peak(*file, node_key(runtime))) flops = peak->sgemm_flops;
  }
  return peak_of_job(runtime.world, flops, runtime.session.ranks_on_node());
}

}  // namespace ptrain
