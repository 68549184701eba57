// ptrain plan: what a run would be, from the YAML and config.json alone; no MPI, no GPU, no data.
#include <fmt/core.h>

#include "kernels/base/error.h"
#include "launch/verbs.h"
#include "parallel/plan/print.h"
#include "parallel/plan/svg.h"
#include "src/io/json.h"
#include "src/train/config_check.h"
#include "src/train/run_plan.h"

namespace ptrain {
namespace {

/// A plan is for the machine named, else for the configured one, else for GPUs.
Config::Device planned_device(const Config& config, const std::optional<Hardware>& hardware) {
  if (config.device != Config::Device::automatic) return config.device;
  const bool is_cpu = hardware && hardware->name.starts_with("cpu:");
  return is_cpu ? Config::Device::cpu : Config::Device::cuda;
}

}  // namespace

int run_plan(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, {"model.path"});
  arguments.required("ranks");
  const int ranks = static_cast<int>(arguments.integer("ranks", 1, 1, 1'000'000));
  std::optional<Hardware> hardware;
  if (arguments.has("hardware")) hardware = hardware_of(arguments.value("hardware"));
  constexpr std::string_view source = "--ranks says";
  check_config(loaded, {.ranks = ranks, .source = source});
  refuse_unbuilt(loaded);

  const ModelSpec spec = read_model_spec(loaded.config.model.path);
  const Compute compute = compute_of(loaded.config, planned_device(loaded.config, hardware));
  const Plan plan = plan_of(loaded.config, spec, ranks, compute, source);
  fmt::print("{}", print_plan(plan, {.hardware = hardware}));
  if (arguments.has("svg")) {
    const Report report = hardware ? estimate_of(plan, *hardware).report : plan.report;
    write_text(arguments.value("svg"),
               svg_of(plan.schedule, plan.map, report,
                      fmt::format("{}, {}, {}, {} micro-batches", plan.workload.name, to_string(plan.mesh),
                                  plan.schedule.name, plan.micros)));
    fmt::print("\nThe schedule as a picture: {}\n", arguments.value("svg"));
  }
  return 0;
}

}  // namespace ptrain
