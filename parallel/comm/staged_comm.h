// A communicator for device tensors where NCCL is absent or ranks share a GPU: they travel through pinned
// host memory and a host communicator. Simple and right, not fast: the host waits in every call.
//
// Everything that was enqueued on the compute stream before a call is done when it takes effect, and what is
// enqueued behind it sees its result. Started collectives are done when they return. Sums over ranks have the
// bits of the host's. CPU tensors go to the host communicator.
#pragma once

#include <initializer_list>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/stream.h"
#include "parallel/comm/communicator.h"

namespace ptrain {

/// The pinned memory that the staged communicators of a rank share: one that collectives go through piece by
/// piece, since none is under way while another begins.
struct Staging {
  /// bytes: a collective of `ranks` ranks moves bytes / ranks of each at a time.
  Staging(Device device, const Stream& compute, int64_t bytes);

  Device device;
  const Stream& compute;  // must outlive this
  Buffer pinned;
};

class StagedComm final : public Communicator {
 public:
  /// host: of the same ranks, outlives this.
  StagedComm(Communicator& host, std::shared_ptr<Staging> staging);
  StagedComm(std::unique_ptr<Communicator> host, std::shared_ptr<Staging> staging);
  ~StagedComm() override;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }

  void all_reduce(Tensor inout, Reduce reduce, SumOrder order) override;
  void all_gather(Tensor part, Tensor whole) override;
  void all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) override;
  void reduce_scatter(Tensor whole, Tensor part, SumOrder order) override;
  void broadcast(Tensor tensor, int root) override;
  void all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                         std::span<const int64_t> receive_counts) override;
  void barrier() override { host_.barrier(); }
  Transfer start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) override;
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override;
  Transfer start_all_gather(Tensor part, Tensor whole) override;

  Transfer isend(Tensor tensor, int peer, Lane lane) override;
  Transfer irecv(Tensor tensor, int peer, Lane lane) override;
  void poll() override { host_.poll(); }

  std::unique_ptr<Communicator> split(int color, int key) override;
  void reserve(int64_t bytes) override { host_.reserve(bytes); }
  int64_t scratch_bytes() const override { return host_.scratch_bytes(); }
  /// Also counts messages for which pinned memory had to be made; later ones of no more bytes use it again.
  int64_t scratch_growths() const override { return host_.scratch_growths() + message_growths_; }
  const Traffic& traffic() const override { return host_.traffic(); }
  double waited_s() const override { return std::numeric_limits<double>::quiet_NaN(); }
  void set_op_ring(OpRing* ring) override { host_.set_op_ring(ring); }
  OpRing* op_ring() const override { return host_.op_ring(); }
  void set_name(std::string_view name) override { host_.set_name(name); }
  uint32_t id() const override { return host_.id(); }

 private:
  /// A message under way through pinned memory.
  struct Message {
    Buffer pinned;
    Transfer host;
    Tensor to;  // of a receive: where it goes in the end
    bool is_taken = false;
  };

  bool is_on_device(std::initializer_list<const Tensor*> tensors) const;
  int64_t piece_elements(DType dtype, int64_t parts) const;
  Tensor pinned(int64_t begin, int64_t elements, DType dtype) const;
  void move(void* to, const void* from, int64_t elements, DType dtype) const;
  void wait_for_device() const { staging_->compute.synchronize(); }
  int take_message(int64_t bytes);
  void arrive(Message& message);

  bool finish_if_done(int64_t transfer) override;
  void finish(int64_t transfer) override;
  void abandon(int64_t transfer) noexcept override;

  std::unique_ptr<Communicator> owned_host_;
  Communicator& host_;
  std::shared_ptr<Staging> staging_;
  std::vector<Message> messages_;
  int64_t message_growths_ = 0;
};

}  // namespace ptrain
