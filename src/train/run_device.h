// Where a rank computes, and what its devices need to reach those of other ranks.
#pragma once

#include "kernels/ops/context.h"
#include "parallel/comm/device_mesh.h"

namespace ptrain {

struct RunDevice {
  RunDevice() = default;
  /// A CPU's context is all it takes; a GPU's communication is staged through the host without `comms`.
  RunDevice(const Context& context, DeviceCommOptions comms = {})
      : context(context), comms(std::move(comms)) {}

  Context context;
  DeviceCommOptions comms;
};

}  // namespace ptrain
