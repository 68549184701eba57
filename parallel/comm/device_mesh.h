// The communicators of a mesh for tensors on a device: over NCCL, or staged through the host. Not for CPU
// runs: see mesh_comms.h.
#pragma once

#include <vector>

#include "kernels/base/stream.h"
#include "parallel/comm/mesh_comms.h"
#include "parallel/comm/nccl_door.h"
#include "parallel/plan/launch_order.h"
#include "parallel/plan/network.h"

namespace ptrain {

struct DeviceCommOptions {
  Nccl* nccl = nullptr;              // null: staged through the host. Outlives the communicators
  NcclSettings network;              // thread blocks of the lanes, traffic class
  std::vector<TransferEdge> edges;   // what the pipeline will send: transfer_edges(plan)
  int hosts = 1;                     // of the job, for messages
  double deadline_s = 300;           // for ranks that do not come
  bool has_zero_ctas = false;        // collectives by copy engines, where NCCL and the memory allow it
  int events = 256;                  // transfers under way at the same time, before more must be made
  int64_t staging_bytes = 32 << 20;  // of pinned memory, where staged
};

/// Like make_mesh_comms; device and host tensors may be sent, and comms.world is a communicator of its own.
/// `compute`: where the ops run; outlives the communicators. The device must be current.
/// With NCCL every communicator and lane is tried out, so that what cannot work fails here, with its name.
MeshComms make_device_comms(Communicator& world, const Mesh& mesh, Device device, const Stream& compute,
                            const DeviceCommOptions& options);

/// How many communicators took memory in which way.
struct Registered {
  int windows = 0;   // symmetric: the same place of every rank
  int local = 0;     // of this rank alone
  int declined = 0;  // operations copy through NCCL's own buffers
};
/// Makes memory known that collectives and messages of the step use: gradients, parameters, activations.
/// Every rank calls with as many regions; those of a data group have the same sizes. Nothing where staged.
Registered register_memory(MeshComms& comms, void* data, int64_t bytes);

}  // namespace ptrain
