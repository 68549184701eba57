// Collectives out of messages, the same on every backend that offers a Wire: threads and MPI run this very
// code, which is why their sums have the same bits. Not for backends with collectives of their own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/buffer.h"
#include "parallel/comm/collective.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/op_ring.h"
#include "parallel/comm/wire.h"

namespace ptrain {

class WiredCommunicator final : public Communicator {
 public:
  /// A world. Communicators split from it make progress together with it. now_s: seconds going forward, for
  /// waited_s(); none: the host's steady clock.
  explicit WiredCommunicator(std::unique_ptr<Wire> wire, std::function<double()> now_s = {});
  ~WiredCommunicator() override;

  int rank() const override { return wire_->rank(); }
  int size() const override { return wire_->size(); }

  void all_reduce(Tensor inout, Reduce reduce, SumOrder order) override;
  void all_gather(Tensor part, Tensor whole) override;
  void all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) override;
  void reduce_scatter(Tensor whole, Tensor part, SumOrder order) override;
  void broadcast(Tensor tensor, int root) override;
  void all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                         std::span<const int64_t> receive_counts) override;
  void barrier() override;
  Transfer start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) override;
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override;
  Transfer start_all_gather(Tensor part, Tensor whole) override;

  Transfer isend(Tensor tensor, int peer, Lane lane) override;
  Transfer irecv(Tensor tensor, int peer, Lane lane) override;
  void poll() override { advance_family(); }

  std::unique_ptr<Communicator> split(int color, int key) override;
  void reserve(int64_t bytes) override;
  int64_t scratch_bytes() const override { return scratch_.bytes(); }
  int64_t scratch_growths() const override { return scratch_growths_; }
  const Traffic& traffic() const override { return traffic_; }
  double waited_s() const override { return family_->waited_s; }
  void set_op_ring(OpRing* ring) override;
  OpRing* op_ring() const override { return family_->ring; }
  void set_name(std::string_view name) override;
  uint32_t id() const override { return id_; }

 private:
  // The communicators of one rank that came from one world. While the rank waits on one of them all go on:
  // else two ranks that wait on different ones could wait for each other.
  struct Family {
    std::vector<WiredCommunicator*> members;
    bool has_dropped = false;  // a Transfer was destroyed before it was done
    std::function<double()> now_s;
    double waited_s = 0;
    OpRing* ring = nullptr;
  };
  /// A message under way, for who asks what the rank waits for.
  struct Message {
    int peer = -1;
    bool is_send = false;
  };

  WiredCommunicator(std::unique_ptr<Wire> wire, std::shared_ptr<Family> family, uint32_t id,
                    std::vector<int> world_ranks, std::string name);

  Collective& prepare(CommKind kind);  // an empty one, to be filled in and handed to enqueue()
  int64_t enqueue();                   // returns its transfer's id
  void run_prepared() { finish(enqueue()); }
  void prepare_all_reduce(Tensor inout, Reduce reduce, SumOrder order);
  void prepare_all_gather(Tensor part, Tensor whole, std::span<const int64_t> counts);
  void prepare_reduce_scatter(Tensor whole, Tensor part, SumOrder order);

  Transfer note_message(int ticket, int peer, bool is_send);
  Op op_of(int64_t transfer) const;
  void wait(int64_t transfer);
  void join_ring();
  bool advance();         // this communicator; true if something moved
  bool advance_family();  // all of them
  bool is_finished(int64_t transfer) const;
  void release(int64_t transfer) noexcept {
    if (transfer % 2 == 0) wire_->release(static_cast<int>(transfer / 2));
  }
  void check_nothing_dropped() const;
  void check_tensor(const Tensor& tensor, const char* name) const;
  void check_rank(int rank, const char* name) const;

  bool finish_if_done(int64_t transfer) override;
  void finish(int64_t transfer) override;
  void abandon(int64_t transfer) noexcept override;

  std::unique_ptr<Wire> wire_;
  std::shared_ptr<Family> family_;
  std::vector<std::unique_ptr<Collective>> queue_;  // in order of the calls; only the first is under way
  std::vector<std::unique_ptr<Collective>> spare_;
  std::unique_ptr<Collective> prepared_;
  int64_t started_ = 0;  // collectives ever enqueued, and how many of them are done: they finish in order
  int64_t finished_ = 0;
  Buffer scratch_;
  int64_t scratch_growths_ = 0;
  std::vector<char> barrier_inbox_;
  Traffic traffic_;
  uint32_t id_;
  uint32_t splits_ = 0;
  std::vector<int> world_ranks_;  // [rank]: of the world that this one was split from
  std::string name_;
  int op_group_ = -1;              // in the ring
  std::vector<Message> messages_;  // [ticket]
};

}  // namespace ptrain
