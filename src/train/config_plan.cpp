#include "src/train/config_plan.h"

#include "kernels/base/error.h"
#include "src/train/config_keys.h"

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

ParallelConfig parallel_config(const Config& config, int world, Config::Precision precision) {
  const bool is_gpipe = config.parallel.schedule == Config::Schedule::gpipe;
  check(is_gpipe || config.parallel.schedule == Config::Schedule::one_f_one_b, ExitCode::usage,
        "parallel.schedule = {} is not built yet; use 1f1b or gpipe",
        value_text(config, "parallel.schedule"));
  return {
      .tensor = config.parallel.tensor,
      .pipeline = config.parallel.pipeline,
      .data = data_ranks(config, world),
      .virtual_stages = config.parallel.virtual_stages,
      .schedule = is_gpipe ? ScheduleName::gpipe : ScheduleName::one_f_one_b,
      .is_sequence_parallel = sequence_parallel(config),
      .zero = config.parallel.zero,
      .micro = config.batch.micro,
      .global = config.batch.global,
      .sequence_length = config.data.sequence_length,
      .types = state_types(precision),
  };
}

}  // namespace ptrain
