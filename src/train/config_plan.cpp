#include "src/train/config_plan.h"

#include "kernels/base/error.h"

namespace ptrain {

Config::Precision resolved_precision(const Config& config, Config::Device found) {
  if (config.precision != Config::Precision::automatic) return config.precision;
  return found == Config::Device::cuda ? Config::Precision::bf16 : Config::Precision::fp32;
}

Compute compute_of(const Config& config, Config::Device found) {
  const Config::Device device = config.device == Config::Device::automatic ? found : config.device;
  return {.device = device == Config::Device::cuda ? DeviceKind::cuda : DeviceKind::cpu,
          .precision = resolved_precision(config, device)};
}

Config::Device found_device(const Device& device) {
  return device.kind == DeviceKind::cuda ? Config::Device::cuda : Config::Device::cpu;
}

StateTypes state_types(Config::Precision precision) {
  switch (precision) {
    case Config::Precision::fp32:
      return {};
    case Config::Precision::bf16:
    case Config::Precision::fp8:
      return {.param = DType::bf16, .master = DType::i16};
    case Config::Precision::fp16:
      return {.param = DType::f16};
    case Config::Precision::automatic:
      break;
  }
  fail(ExitCode::defect, "the precision is not resolved");
}

StorageWish storage_wish(Config::Storage storage) {
  switch (storage) {
    case Config::Storage::shared:
      return StorageWish::shared;
    case Config::Storage::per_node:
      return StorageWish::per_node;
    case Config::Storage::automatic:
      break;
  }
  return StorageWish::automatic;
}

void check_offload(const ParallelConfig& parallel, const Compute& compute) {
  check(
      parallel.offload == Offload::none || compute.device == DeviceKind::cuda, ExitCode::usage,
      "parallel.offload = optimizer, but the run computes on CPUs, whose memory holds the optimizer anyway; "
      "set it to none, or device to cuda");
}

namespace {

ScheduleName schedule_name(const Config& config) {
  switch (config.parallel.schedule) {
    case Config::Schedule::gpipe:
      return ScheduleName::gpipe;
    case Config::Schedule::one_f_one_b:
      return ScheduleName::one_f_one_b;
    case Config::Schedule::interleaved:
      return ScheduleName::interleaved;
    case Config::Schedule::zero_bubble:
      return ScheduleName::zero_bubble;
    case Config::Schedule::automatic:
      break;
  }
  return config.parallel.virtual_stages > 1 ? ScheduleName::interleaved : ScheduleName::one_f_one_b;
}

Recompute recompute_of(const Config& config) {
  switch (config.train.recompute) {
    case Config::Recompute::selective:
      return Recompute::selective;
    case Config::Recompute::full:
      return Recompute::full;
    case Config::Recompute::none:
    case Config::Recompute::automatic:
      break;
  }
  return Recompute::none;
}

}  // namespace

ParallelConfig parallel_config(const Config& config, int world, Config::Precision precision) {
  return {
      .tensor = config.parallel.tensor,
      .pipeline = config.parallel.pipeline,
      .data = data_ranks(config, world),
      .virtual_stages = config.parallel.virtual_stages,
      .schedule = schedule_name(config),
      .is_sequence_parallel = sequence_parallel(config),
      .zero = config.parallel.zero,
      .micro = config.batch.micro,
      .global = config.batch.global,
      .sequence_length = config.data.sequence_length,
      .types = state_types(precision),
      .recompute = recompute_of(config),
      .offload = config.parallel.offload == Config::Offload::optimizer ? Offload::optimizer : Offload::none,
      .saves_behind = config.checkpoint.asynchronous && config.checkpoint.every > 0,
      .is_grid_invariant = config.train.deterministic == Config::Deterministic::grid,
  };
}

}  // namespace ptrain
