// ptrain plan: what a run would be, from the YAML and config.json alone; no MPI, no GPU, no data.
#include <fmt/core.h>

#include "kernels/base/error.h"
#include "launch/verbs.h"
#include "parallel/plan/launch_order.h"
#include "parallel/plan/print.h"
#include "parallel/plan/print_estimate.h"
#include "parallel/plan/svg.h"
#include "parallel/plan/svg_compare.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/config_check.h"
#include "src/train/plan_choice.h"
#include "src/train/price_file.h"
#include "src/train/trace_read.h"

namespace ptrain {
namespace {

constexpr std::string_view source = "--ranks says";

/// A plan is for the machine named, else for the configured one, else for GPUs.
Config::Device planned_device(const Config& config, const std::optional<Hardware>& hardware) {
  if (config.device != Config::Device::automatic) return config.device;
  const bool is_cpu = hardware && hardware->name.starts_with("cpu:");
  return is_cpu ? Config::Device::cpu : Config::Device::cuda;
}

/// What `auto` is chosen for without the name of a machine: nothing is known to be scarce.
Hardware chosen_for(const std::optional<Hardware>& hardware) {
  return hardware ? *hardware : ideal_hardware(std::nullopt);
}

void draw(const Plan& plan, const std::optional<Hardware>& hardware, const std::string& file) {
  const Report report = hardware ? estimate_of(plan, *hardware).report : plan.report;
  write_text(file, svg_of(plan.schedule, plan.map, report,
                          fmt::format("{}, {}, {}, {} micro-batches", plan.workload.name,
                                      to_string(plan.mesh), plan.schedule.name, plan.micros)));
  fmt::print("\nThe schedule as a picture: {}\n", file);
}

/// The plan above a step of a run's trace.
void draw_beside_run(const Plan& plan, const Arguments& arguments) {
  std::optional<int64_t> step;
  if (arguments.has("step")) step = arguments.integer("step", 1, 1);
  const TracedStep run = read_traced_step(arguments.value("trace"), plan, step);
  write_text(arguments.value("svg"), svg_of_plan_and_run(plan, run.step, run.intervals));
  fmt::print("\nThe schedule and step {} of the run as a picture: {}\n", run.step, arguments.value("svg"));
}

/// How many tokens the guide is about, and the words for them.
std::pair<double, std::string> tokens_of(const Arguments& arguments, const Config& config) {
  if (arguments.has("tokens")) {
    const int64_t tokens = arguments.integer("tokens", 1, 1, int64_t{1} << 60);
    return {static_cast<double>(tokens), fmt::format("an epoch of {} tokens", with_commas(tokens))};
  }
  if (config.train.steps) {
    const int64_t tokens = *config.train.steps * config.batch.global * config.data.sequence_length;
    return {static_cast<double>(tokens),
            fmt::format("{} steps, {} tokens", with_commas(*config.train.steps), with_commas(tokens))};
  }
  return {1e9, "1,000,000,000 tokens (give --tokens N for an epoch's)"};
}

/// What a run checks before it starts; here it is said.
std::string order_text(const Plan& plan) {
  check_launch_order(plan);
  if (plan.mesh.world() == 1) return "";
  return fmt::format(
      "\nOrder of communication: what ranks send and sum in a step was matched, nobody waits for ever; {} "
      "operations and waits on rank 0\n",
      with_commas(static_cast<int64_t>(launches_of(plan, 0).size())));
}

}  // namespace

int run_plan(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, {"model.path"});
  arguments.required("ranks");
  const int ranks = static_cast<int>(arguments.integer("ranks", 1, 1, 1'000'000));
  std::optional<Hardware> hardware;
  if (arguments.has("hardware")) hardware = hardware_of(arguments.value("hardware"));
  std::vector<Price> prices;
  if (arguments.has("prices")) prices = read_prices(arguments.value("prices"));
  check(!arguments.has("tokens") || !prices.empty(), ExitCode::usage,
        "--tokens says what --prices counts: give both");
  check(!arguments.has("trace") || arguments.has("svg"), ExitCode::usage,
        "--trace is drawn into a picture: give --svg FILE too");
  check(!arguments.has("step") || arguments.has("trace"), ExitCode::usage,
        "--step is one of a run's trace: give --trace FILE too");
  check_config(loaded, {.ranks = ranks, .source = source});

  const Config& config = loaded.config;
  const ModelSpec spec = read_base_model(config).spec;
  const Compute compute = compute_of(config, planned_device(config, hardware));
  const auto [plan, why] = chosen_plan(config, spec, ranks, compute, chosen_for(hardware), source);
  const PlanMaker make = plan_maker(config, spec, compute, source);
  fmt::print("{}", print_plan(plan, {.hardware = hardware, .why = why}));
  fmt::print("{}", order_text(plan));
  if (hardware) {
    const Estimate estimate = estimate_of(plan, *hardware);
    if (!estimate.does_fit) {
      fmt::print("{}", print_advice(advise(plan, make, *hardware), *hardware, estimate.step_s));
    }
  }
  if (!prices.empty()) {
    const auto [tokens, tokens_are] = tokens_of(arguments, config);
    const GuideRequest request{
        .from = plan.parallel, .workload = &plan.workload, .ranks = ranks, .tokens = tokens};
    fmt::print("{}", print_guide(request, buying_guide(request, prices, make), tokens_are));
  }
  if (arguments.has("trace")) {
    draw_beside_run(plan, arguments);
  } else if (arguments.has("svg")) {
    draw(plan, hardware, arguments.value("svg"));
  }
  return 0;
}

}  // namespace ptrain
