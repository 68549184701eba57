// Whether a run fits its GPU, judged before anything is loaded.
#pragma once

#include <span>
#include <string>

#include "kernels/base/runtime.h"
#include "parallel/plan/plan.h"
#include "src/train/config_plan.h"
#include "src/train/run_device.h"

namespace ptrain {

/// What a process without any tensor takes of a GPU: context, kernels, library handles. An estimate: the
/// ledger does not know it, and the banner shows both beside the device's own figure.
inline constexpr int64_t library_bytes = int64_t{1200} << 20;

/// Why a device cannot be used, or empty: no driver for the toolkit, no units for the precision.
std::string objection_to_device(const runtime::RuntimeVersions& versions, const runtime::DeviceInfo& device,
                                Config::Precision precision);

/// Why the plan does not fit the memory that is free, and what would, or empty.
std::string objection_to_memory(const Plan& plan, int rank, const runtime::DeviceInfo& device);

/// Memory of this host, or what the control group of this process leaves of it.
int64_t host_memory_bytes();

/// Why what the ranks of this host keep in its memory does not fit, or empty: on CPUs all of their plans, on
/// GPUs an offloaded optimizer; on both the copies that saves beside training are written from. hosts: of
/// each rank; empty = all on one.
std::string objection_to_host_memory(const Plan& plan, int rank, DeviceKind device,
                                     std::span<const std::string> hosts, int64_t host_bytes);

/// A collective: every rank's plan against the memory that its GPU has free now, and that of its host.
/// Errors (resources), agreed on: see objection_to_memory, objection_to_host_memory.
void check_memory(Communicator& world, const Plan& plan, const RunDevice& device,
                  std::span<const std::string> hosts = {});

/// "sm_90"; bf16 wants sm_80, fp8 sm_89.
std::string name_of_architecture(const runtime::DeviceInfo& device);

}  // namespace ptrain
