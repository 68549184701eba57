// From the user's configuration to what a plan needs of it, every `auto` resolved.
// Not for judging: check_config comes first, make_plan refuses what the model does not allow.
#pragma once

#include <cstdint>

#include "parallel/plan/workload.h"
#include "src/train/config.h"

namespace ptrain {

/// What runs where nothing else is asked for: `precision: auto` is fp32 on a CPU and bf16 on a GPU.
Config::Precision resolved_precision(const Config& config, Config::Device found);

/// Element types of weights, gradients and optimizer state. fp32: all f32. bf16 and fp16: weights and
/// gradients in 16 bits, sums over ranks, master weights and moments in f32. fp8 stores as bf16 does.
StateTypes state_types(Config::Precision precision);

/// The plan's view of a configuration that check_config accepted for `world` ranks. `precision` is resolved.
/// Errors: ExitCode::usage for a schedule that is not built.
ParallelConfig parallel_config(const Config& config, int world, Config::Precision precision);

}  // namespace ptrain
