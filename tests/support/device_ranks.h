// Ranks as threads, each with an emulated device and communicators that take its tensors: over a fake NCCL or
// staged through the host.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/stream.h"
#include "parallel/comm/device_mesh.h"
#include "parallel/comm/thread_comm.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/emulation/fibers.h"
#include "tests/support/fake_nccl.h"

namespace ptrain {

inline constexpr Device gpu{.kind = DeviceKind::cuda};

enum class Through { nccl, eager_nccl, host };
inline std::string name_of(Through through) {
  return through == Through::host ? "staged" : through == Through::nccl ? "nccl" : "nccl, eager sends";
}

/// Work on device memory in the order of a stream; it runs when the emulated device gets to it.
inline void enqueue(const Stream& stream, std::function<void()> work) {
  emulation::enqueue_when(stream.native(), [work = std::move(work)] {
    work();
    return true;
  });
}

/// One rank's side of a test.
struct DeviceRank {
  Communicator& host;
  FakeNcclWorld& fake;
  Nccl* nccl;
  Stream compute{gpu};
  MeshComms comms;

  template <class T>
  OwnedTensor zeros(int64_t count) const {
    return OwnedTensor({count}, dtype_of<T>, gpu);
  }
  /// Enqueues to = values.
  template <class T>
  void put(std::vector<T> values, Tensor to) const {
    enqueue(compute, [values = std::move(values), to] {
      std::memcpy(to.data, values.data(), static_cast<size_t>(to.bytes()));
    });
  }
  /// What the tensor holds once compute has run; the host waits.
  template <class T>
  std::vector<T> get(Tensor from) const {
    const Buffer staging = Buffer::staging(from.bytes(), gpu);
    transfer(from, Tensor(staging.data(), from.shape, from.dtype), compute);
    compute.synchronize();
    const auto* values = static_cast<const T*>(staging.data());
    return {values, values + from.numel()};
  }
};

struct DeviceTest {
  Mesh mesh;
  Through through = Through::nccl;
  uint64_t seed = 1;  // of the order of streams
  std::vector<TransferEdge> edges = {};
  int64_t staging_bytes = 1 << 20;
  int events = 64;
  double deadline_s = 20;
};

/// Runs body on every rank of the mesh.
inline void run_device_ranks(const DeviceTest& test, const std::function<void(DeviceRank&)>& body) {
  FakeNcclWorld world(test.through == Through::eager_nccl ? FakeSends::eager : FakeSends::rendezvous);
  run_thread_ranks(test.mesh.world(), [&](Communicator& host) {
    emulation::seed_order(test.seed * 101 + static_cast<uint64_t>(host.rank()));
    FakeNccl nccl(world);
    DeviceRank rank{
        .host = host, .fake = world, .nccl = test.through == Through::host ? nullptr : &nccl, .comms = {}};
    rank.comms = make_device_comms(host, test.mesh, gpu, rank.compute,
                                   {.nccl = rank.nccl,
                                    .network = {},
                                    .edges = test.edges,
                                    .deadline_s = test.deadline_s,
                                    .events = test.events,
                                    .staging_bytes = test.staging_bytes});
    body(rank);
    rank.compute.synchronize();
    host.barrier();  // memory that another rank's operation may still name stays until all are done
  });
}

/// Both lanes and the tied one, both ways between neighbours of a ring of `positions`.
inline std::vector<TransferEdge> ring_edges(int positions) {
  std::vector<TransferEdge> edges;
  for (TransferLane lane : {TransferLane::activation, TransferLane::gradient, TransferLane::tied}) {
    for (int from = 0; from < positions; ++from) {
      for (int to = 0; to < positions; ++to) {
        if (from != to && ((from + 1) % positions == to || (to + 1) % positions == from))
          edges.push_back({lane, from, to});
      }
    }
  }
  return edges;
}

}  // namespace ptrain
