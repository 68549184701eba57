// Ranks as threads, each with a device and communicators that take its tensors, over NCCL or staged through
// the host. Emulated devices and a fake NCCL, or GPUs and the library, as the test was linked: fake_nccl.cpp
// or gpu_ranks.cpp.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/stream.h"
#include "parallel/comm/device_mesh.h"
#include "parallel/comm/thread_comm.h"

namespace ptrain {

inline constexpr Device gpu{.kind = DeviceKind::cuda};

enum class Through { nccl, eager_nccl, host };
inline std::string name_of(Through through) {
  return through == Through::host ? "staged" : through == Through::nccl ? "nccl" : "nccl, eager sends";
}

// --- Of the devices that the test was linked with ----------------------------------------------------------

/// How a rank gets its library; shared by the ranks of one test.
using MakeNccl = std::function<std::unique_ptr<Nccl>()>;
MakeNccl nccl_for_ranks(Through through);
/// Why the machine cannot run so many ranks in that way; empty: it can.
std::string why_not(Through through, int ranks);
/// The device of a rank, made current for the calling thread.
Device device_of(int rank, Through through);
/// Another order of streams on emulated devices.
void seed_streams(uint64_t seed);

/// One rank's side of a test.
struct DeviceRank {
  Communicator& host;
  Device device;
  std::unique_ptr<Nccl> nccl;  // null: staged
  Stream compute;
  MeshComms comms;
  mutable std::vector<Buffer> staged;  // what put() copies from, until the end

  template <class T>
  OwnedTensor zeros(int64_t count) const {
    return OwnedTensor({count}, dtype_of<T>, device);
  }
  /// Enqueues to = values.
  template <class T>
  void put(const std::vector<T>& values, Tensor to) const {
    staged.push_back(Buffer::staging(to.bytes(), device));
    std::memcpy(staged.back().data(), values.data(), static_cast<size_t>(to.bytes()));
    transfer(Tensor(staged.back().data(), to.shape, to.dtype), to, compute);
  }
  /// What the tensor holds once compute has run; the host waits.
  template <class T>
  std::vector<T> get(Tensor from) const {
    const Buffer staging = Buffer::staging(from.bytes(), device);
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

/// Runs body on every rank of the mesh; not at all where why_not().
inline void run_device_ranks(const DeviceTest& test, const std::function<void(DeviceRank&)>& body) {
  if (const std::string why = why_not(Through::host, 1); !why.empty()) GTEST_SKIP() << why;
  if (!why_not(test.through, test.mesh.world()).empty()) return;
  const MakeNccl make = nccl_for_ranks(test.through);
  run_thread_ranks(test.mesh.world(), [&](Communicator& host) {
    seed_streams(test.seed * 101 + static_cast<uint64_t>(host.rank()));
    const Device device = device_of(host.rank(), test.through);
    DeviceRank rank{.host = host,
                    .device = device,
                    .nccl = test.through == Through::host ? nullptr : make(),
                    .compute = Stream(device),
                    .comms = {},
                    .staged = {}};
    rank.comms = make_device_comms(host, test.mesh, device, rank.compute,
                                   {.nccl = rank.nccl.get(),
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
