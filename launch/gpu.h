// The GPU of a rank: which one, its stream and libraries, NCCL and the network's settings. Made before
// anything is loaded, so that what cannot run is said at once.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/stream.h"
#include "kernels/ops/context.h"
#include "kernels/ops/libraries.h"
#include "launch/cli.h"
#include "parallel/comm/device_mesh.h"
#include "parallel/comm/session.h"
#include "parallel/plan/network.h"
#include "src/train/config.h"

namespace ptrain {

struct Gpu {
  Device device;
  Stream stream;
  std::unique_ptr<Libraries> libraries;
  std::unique_ptr<Nccl> nccl;  // null where built without, or where ranks share a GPU that it cannot share
  DeviceCommOptions comms;     // points at nccl
  std::vector<std::string> banner;  // lines for rank 0
  NetworkDecision network;
  SlowNetwork slow_network = SlowNetwork::refused;
  std::filesystem::path nccl_log;  // of this process; empty where NCCL was told another

  /// A collective, once the communicators are up: says which network NCCL took.
  /// Errors (usage), agreed on: TCP where a faster one is there.
  void judge_network(Communicator& world) const;
};

/// A collective. Nothing where the configuration says cpu, or auto and no rank can use a GPU.
/// Errors, agreed on by all ranks: usage or resources, with what was found: device: cuda without a GPU, a
/// driver older than the toolkit, more ranks than GPUs, a precision that the GPU has no units for, a slow
/// network beside a fast one.
std::unique_ptr<Gpu> start_gpu(Session& session, const Arguments& arguments, const Config& config);

/// <cache>/<name> below $XDG_CACHE_HOME or ~/.cache/ptrain; nothing where the environment names neither.
std::optional<std::filesystem::path> cache_file(const Arguments& arguments, std::string_view name);

}  // namespace ptrain
