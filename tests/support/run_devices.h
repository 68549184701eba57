// Ranks as threads with all that a trainer wants of a GPU: a device each, a stream, libraries, communication.
#pragma once

#include <functional>
#include <memory>

#include "kernels/ops/libraries.h"
#include "src/train/run_device.h"
#include "tests/support/device_ranks.h"
#include "tests/support/ranks.h"

namespace ptrain {

/// Calls body(world, device) on `ranks` ranks.
inline void run_on_devices(int ranks, Through through,
                           const std::function<void(Communicator&, const RunDevice&)>& body) {
  const MakeNccl make = nccl_for_ranks(through);
  run_ranks(ranks, [&](Communicator& world) {
    const Device device = device_of(world.rank(), through);
    const std::unique_ptr<Nccl> nccl = make();
    const Stream stream(device);
    const std::unique_ptr<Libraries> libraries = make_libraries(device, {});
    Context context;
    context.device = device;
    context.stream = &stream;
    context.libraries = libraries.get();
    body(world, RunDevice(context, {.nccl = nccl.get(), .deadline_s = 20}));
  });
}

}  // namespace ptrain
