#include "launch/peak_file.h"

#include <algorithm>

#include "launch/threads.h"
#include "src/train/config_plan.h"

namespace ptrain {

std::optional<std::filesystem::path> peak_file(const Arguments& arguments) {
  return cache_file(arguments, "peak.json");
}

namespace {

int threads_on_node(const Runtime& runtime) {
  return runtime.context.threads * runtime.session.ranks_on_node();
}

}  // namespace

PeakKey node_key(const Runtime& runtime, Config::Precision precision) {
  if (runtime.gpu != nullptr) {
    const runtime::DeviceInfo gpu = runtime::device_info(runtime.context.device.index);
    const bool is_fp8 = precision == Config::Precision::fp8;
    const DType products = is_fp8 ? DType::f8_e4m3 : state_types(precision).param;
    return {.cpu = fmt::format("{}, {}", gpu.name, name_of(products)),
            .threads = runtime.session.ranks_on_node()};
  }
  return {.cpu = cpu_model(), .threads = std::min(threads_on_node(runtime), machine_cores())};
}

bool has_core_for_each_thread(const Runtime& runtime) {
  return threads_on_node(runtime) <= machine_cores();
}

std::optional<double> measured_peak(const Runtime& runtime, const Config& config) {
  const Compute compute = compute_of(config, found_device(runtime.context.device));
  std::optional<double> flops;
  if (const auto file = peak_file(runtime.arguments)) {
    if (const auto peak = read_peak(*file, node_key(runtime, compute.precision))) flops = peak->sgemm_flops;
  }
  return peak_of_job(runtime.world, flops, runtime.session.ranks_on_node());
}

}  // namespace ptrain
