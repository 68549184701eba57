// From the user's configuration to what a plan, a device and the disks need of it.
// Not for judging: check_config does that, make_plan refuses what the model does not allow.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "parallel/plan/workload.h"
#include "src/io/storage.h"
#include "src/train/config.h"

namespace ptrain {

/// What runs where nothing else is asked for: `precision: auto` is fp32 on a CPU and bf16 on a GPU.
Config::Precision resolved_precision(const Config& config, Config::Device found);

/// Where a run computes, and in what: nothing is `auto` any more.
struct Compute {
  DeviceKind device = DeviceKind::cpu;
  Config::Precision precision = Config::Precision::fp32;
};
/// `found`: what there is to compute on, cuda where there is a GPU.
Compute compute_of(const Config& config, Config::Device found);
/// What a process that was given this device computes on.
Config::Device found_device(const Device& device);

/// Element types of weights, gradients and optimizer state. fp32: all f32. bf16 and fp16: weights in 16 bits,
/// gradients, sums over ranks, master weights and moments in f32; the master of bf16 is kept as the 16 bits
/// that the weight leaves out. fp8 stores as bf16 does.
StateTypes state_types(Config::Precision precision);

/// checkpoint.storage.
StorageWish storage_wish(Config::Storage storage);

/// parallel.offload against the device. Errors: ExitCode::usage where the optimizer is in host memory anyway.
void check_offload(const ParallelConfig& parallel, const Compute& compute);

/// The plan's view of a configuration on `world` ranks. `precision` is resolved. What is left to choose
/// stands at the plainest: recompute auto at none, schedule auto at 1f1b, or at interleaved with
/// virtual_stages > 1.
ParallelConfig parallel_config(const Config& config, int world, Config::Precision precision);

}  // namespace ptrain
