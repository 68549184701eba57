#include "src/train/plan_choice.h"

#include <algorithm>

#include "src/train/device_check.h"

namespace ptrain {
namespace {

int64_t most_ranks_on_a_host(std::span<const std::string> hosts, int world) {
  if (hosts.empty()) return world;
  int64_t most = 0;
  for (const std::string& host : hosts) most = std::max<int64_t>(most, std::ranges::count(hosts, host));
  return most;
}

}  // namespace

Open open_of(const Config& config) {
  return {.is_schedule = config.parallel.schedule == Config::Schedule::automatic,
          .is_recompute = config.train.recompute == Config::Recompute::automatic};
}

PlanMaker plan_maker(const Config& config, const ModelSpec& spec, const Compute& compute,
                     std::string_view started) {
  return [&config, &spec, compute, started](ParallelConfig parallel) {
    parallel.is_sequence_parallel = config.parallel.sequence_parallel.value_or(true);
    return plan_for(config, spec, parallel, parallel.tensor * parallel.pipeline * parallel.data, compute,
                    started);
  };
}

ChosenPlan chosen_plan(const Config& config, const ModelSpec& spec, int world, const Compute& compute,
                       const Hardware& hardware, std::string_view started) {
  const ParallelConfig from = parallel_config(config, world, compute.precision);
  mesh_of(from, world, started);
  const Choice choice = choose(from, open_of(config), plan_maker(config, spec, compute, started), hardware);
  return {.plan = plan_for(config, spec, choice.parallel, world, compute, started), .why = choice.why};
}

std::optional<int64_t> memory_of_ranks(Communicator& world, const Device& device, const Compute& compute,
                                       std::span<const std::string> hosts) {
  if (device.kind != compute.device) return std::nullopt;
  int64_t bytes = 0;
  if (device.kind == DeviceKind::cuda) {
    bytes = std::max<int64_t>(0, runtime::device_info(device.index).free_bytes - library_bytes);
  } else {
    bytes = host_memory_bytes() / 10 * 9 / most_ranks_on_a_host(hosts, world.size());
  }
  world.all_reduce(Tensor(&bytes, {1}, DType::i64), Reduce::min);
  return bytes;
}

Hardware room_of_ranks(Communicator& world, const Device& device, const Config& config,
                       std::span<const std::string> hosts) {
  if (!open_of(config).is_any()) return ideal_hardware(std::nullopt);
  return ideal_hardware(memory_of_ranks(world, device, compute_of(config, found_device(device)), hosts));
}

}  // namespace ptrain
