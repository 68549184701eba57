// A communicator for device tensors: NCCL's operations in the order of streams, the host never waits. CPU
// tensors go to a host communicator underneath. Not for builds without NCCL: see staged_comm.h.
//
// Blocking collectives run on the compute stream, between the ops before and behind them. Started ones run on
// a stream of their communicator after what compute had enqueued; Transfer::wait() makes the compute stream
// wait for them, not the host. So a tensor may be used by ops that are enqueued after wait(), and by the host
// only after it has synchronised with the compute stream. is_done() waits in the same way and is always true:
// what is enqueued afterwards comes after the transfer.
//
// Messages of a lane from one rank to another have a communicator and a stream of their own, so that no
// message waits for another lane, direction or peer: NCCL knows no tags, and in-order blocking sends
// deadlock. Sums over ranks follow NCCL's order: the same bits on every rank, not those of the host. A sum as
// a tree (SumOrder) of floats over more than two ranks is refused: NCCL has no such order, and of two only
// one.
#pragma once

#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/device_queues.h"
#include "parallel/comm/nccl_door.h"
#include "parallel/plan/launch_order.h"

namespace ptrain {

class DeviceComm final : public Communicator {
 public:
  /// host: of the same ranks, outlives this. nccl: null for a group of one. name: of the group, for messages.
  DeviceComm(Communicator& host, std::unique_ptr<NcclComm> nccl, std::shared_ptr<DeviceQueues> queues,
             const NcclConfig& config, std::string name);
  ~DeviceComm() override;

  /// Makes the communicators of the messages that will be sent; every rank calls with the same edges, whose
  /// ends are ranks of this communicator. For set-up.
  void open_lanes(std::span<const TransferEdge> edges, const NcclConfig& config);
  /// One small operation on every communicator and lane, together with the other ranks; the host waits.
  /// Errors (resources): what did not arrive within the deadline, or arrived wrong, by its name.
  void try_out(double deadline_s);
  /// Lets operations use this memory without a copy in between, those of lanes too where it is local; every
  /// rank calls. Returns whether all took it.
  bool register_buffer(void* data, int64_t bytes, Registration registration);
  /// split() with a name for messages. groups of one have no NCCL underneath.
  std::unique_ptr<DeviceComm> split_group(int color, int key, std::string name);

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }

  void all_reduce(Tensor inout, Reduce reduce, SumOrder order) override;
  void all_gather(Tensor part, Tensor whole) override;
  void all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) override;
  void reduce_scatter(Tensor whole, Tensor part, SumOrder order) override;
  void broadcast(Tensor tensor, int root) override;
  void all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                         std::span<const int64_t> receive_counts) override;
  /// Of the hosts: says nothing of what is enqueued on devices.
  void barrier() override { host_.barrier(); }
  Transfer start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) override;
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override;
  Transfer start_all_gather(Tensor part, Tensor whole) override;

  /// On a lane of open_lanes().
  Transfer isend(Tensor tensor, int peer, Lane lane) override;
  Transfer irecv(Tensor tensor, int peer, Lane lane) override;
  /// Also looks whether NCCL has failed, on all communicators of the rank.
  void poll() override;

  std::unique_ptr<Communicator> split(int color, int key) override;
  void reserve(int64_t bytes) override { host_.reserve(bytes); }
  int64_t scratch_bytes() const override { return host_.scratch_bytes(); }
  /// Also counts events that had to be made because too few were.
  int64_t scratch_growths() const override { return host_.scratch_growths() + queues_->event_growths(); }
  const Traffic& traffic() const override;
  double waited_s() const override { return std::numeric_limits<double>::quiet_NaN(); }
  void set_op_ring(OpRing* ring) override;
  OpRing* op_ring() const override { return host_.op_ring(); }
  void set_name(std::string_view name) override;
  uint32_t id() const override { return host_.id(); }

 private:
  /// Messages from one rank to another: rank 0 of `comm` sends, rank 1 receives.
  struct EdgeLane {
    Lane lane;
    int from, to;
    std::unique_ptr<NcclComm> comm;
    Stream stream;
  };

  bool is_on_device(std::initializer_list<const Tensor*> tensors) const;
  runtime::NativeStream compute_in_order();
  template <class Enqueue>
  Transfer start(const Enqueue& enqueue);
  const EdgeLane& lane_of(int from, int to, Lane lane) const;
  Transfer enqueue_message(Tensor tensor, const EdgeLane& lane);
  void copy_own(const void* from, void* to, int64_t bytes, runtime::NativeStream stream);
  void enqueue_all_reduce(Tensor inout, Reduce reduce, runtime::NativeStream stream);
  void enqueue_all_gather(Tensor part, Tensor whole, runtime::NativeStream stream);
  void enqueue_reduce_scatter(Tensor whole, Tensor part, runtime::NativeStream stream);
  void check_order(const Tensor& tensor, Reduce reduce, SumOrder order) const;
  void count(CommKind kind, int64_t messages, int64_t bytes);
  void join_ring(OpRing* ring);

  bool finish_if_done(int64_t transfer) override;
  void finish(int64_t transfer) override;
  void abandon(int64_t transfer) noexcept override;

  std::unique_ptr<Communicator> owned_host_;
  Communicator& host_;
  std::unique_ptr<NcclComm> nccl_;
  std::shared_ptr<DeviceQueues> queues_;
  NcclConfig config_;
  std::string name_;
  /// Started collectives, before compute where both could run. Of each communicator its own: what a layer
  /// waits for must not queue behind a bucket of gradients on its way to another node.
  Stream background_;
  Event last_started_;  // the end of the last collective there
  bool has_started_ = false;
  std::vector<EdgeLane> lanes_;
  Traffic own_;
  mutable Traffic sum_;
  OpRing* ring_ = nullptr;
  int op_group_ = -1;  // in the ring: what was enqueued on the device, apart from what the host does
};

}  // namespace ptrain
