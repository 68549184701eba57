// What is needed of NCCL, without its types: nccl_door.cpp speaks to the library, a test's fake to threads.
// Operations are enqueued on a stream and run there; nothing here waits for a device. Not for deciding which
// communicators there are or when they are used: see device_comm.h.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "kernels/base/dtype.h"
#include "kernels/base/runtime.h"
#include "parallel/comm/communicator.h"

namespace ptrain {

/// What the ranks of a new group must know to find each other.
struct NcclId {
  std::array<char, 128> bytes{};
};

/// How a communicator is made. Empty values are NCCL's own choice; those that the version of this build does
/// not know are left out.
struct NcclConfig {
  std::optional<int> min_ctas, max_ctas;  // thread blocks, and with them multiprocessors, of an operation
  std::optional<int> cga_cluster_size;
  std::optional<int> traffic_class;  // of InfiniBand and RoCE
  bool has_zero_ctas = false;        // copy engines in place of thread blocks, where memory is registered
  double deadline_s = 300;           // for whatever waits for other ranks on the host
  int hosts = 1;                     // of the job, for messages
};

/// How memory is made known: local to this rank, or a window at the same place of every rank, which all ranks
/// of the communicator must ask for together.
enum class Registration : uint8_t { local, symmetric };

/// The ranks of a group. All call the same collectives in the same order; sends to a rank and its receives
/// match in order. Destroying one communicates with nobody: what was enqueued must be done everywhere.
/// Errors: ExitCode::resources with what NCCL said, the rank and the number of ranks and hosts.
class NcclComm {
 public:
  NcclComm() = default;
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;
  virtual ~NcclComm() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // All counts are elements; memory lies on the device.
  /// to = from of all ranks, reduced; may be the same place.   from, to: (count)
  virtual void all_reduce(const void* from, void* to, int64_t count, DType dtype, Reduce reduce,
                          runtime::NativeStream stream) = 0;
  /// part: (count), may lie at its place in whole: (size * count)
  virtual void all_gather(const void* part, void* whole, int64_t count, DType dtype,
                          runtime::NativeStream stream) = 0;
  /// A sum.   whole: (size * count), part: (count), may lie at its place in whole
  virtual void reduce_scatter(const void* whole, void* part, int64_t count, DType dtype,
                              runtime::NativeStream stream) = 0;
  virtual void broadcast(void* data, int64_t count, DType dtype, int root, runtime::NativeStream stream) = 0;
  virtual void send(const void* data, int64_t count, DType dtype, int peer, runtime::NativeStream stream) = 0;
  virtual void receive(void* data, int64_t count, DType dtype, int peer, runtime::NativeStream stream) = 0;

  /// What is called between the two is one operation: its parts do not wait for each other.
  virtual void group_begin() = 0;
  virtual void group_end() = 0;

  /// Every rank calls. One that names a negative color gets nullptr.
  virtual std::unique_ptr<NcclComm> split(int color, int key, const NcclConfig& config) = 0;

  /// Memory that operations may then use without a copy in between; registered until this is destroyed.
  /// Returns whether the library took it: a symmetric window wants memory that NCCL can map everywhere.
  virtual bool register_buffer(void* data, int64_t bytes, Registration registration) = 0;

  /// What went wrong behind our back; empty: nothing. Never blocks.
  virtual std::string async_error() = 0;
  /// Ends everything under way; later calls are errors.
  virtual void abort() noexcept = 0;
};

class Nccl {
 public:
  virtual ~Nccl() = default;
  virtual int version() const = 0;  // 22809 = 2.28.9, of the library that is loaded
  virtual NcclId unique_id() = 0;   // one rank calls and tells the others
  /// Every rank calls, with its device current; returns when all have come, or throws at the deadline.
  virtual std::unique_ptr<NcclComm> connect(const NcclId& id, int rank, int ranks,
                                            const NcclConfig& config) = 0;
};

/// The library of this build; null where it was built without.
std::unique_ptr<Nccl> make_nccl();

}  // namespace ptrain
