// A communicator that writes down what it is asked for and passes it on: for tests that compare what was
// planned with what was executed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// One call of one rank.
struct Call {
  CommKind kind = CommKind::barrier;
  int64_t count =
      0;  // elements: of the whole tensor for gathers and scatters, of what is sent for all_to_all
  DType dtype = DType::u8;
  int peer = -1;  // root or peer; -1 for none
  bool is_receive = false;
  Lane lane = Lane::control;  // point to point
  SumOrder order = SumOrder::ranks;

  bool operator==(const Call&) const = default;
};
std::string to_string(const Call& call);  // "all_reduce 1024 f32"

/// Calls in the order in which they were made. Groups split from it write into logs of their own.
class RecordingCommunicator final : public Communicator {
 public:
  explicit RecordingCommunicator(Communicator& inner) : inner_(&inner) {}
  explicit RecordingCommunicator(std::unique_ptr<Communicator> inner)
      : owned_(std::move(inner)), inner_(owned_.get()) {}

  const std::vector<Call>& calls() const { return calls_; }
  void clear_calls() { calls_.clear(); }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
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
  void poll() override { inner_->poll(); }
  std::unique_ptr<Communicator> split(int color, int key) override;
  void reserve(int64_t bytes) override { inner_->reserve(bytes); }
  int64_t scratch_bytes() const override { return inner_->scratch_bytes(); }
  int64_t scratch_growths() const override { return inner_->scratch_growths(); }
  const Traffic& traffic() const override { return inner_->traffic(); }
  double waited_s() const override { return inner_->waited_s(); }
  void set_op_ring(OpRing* ring) override { inner_->set_op_ring(ring); }
  OpRing* op_ring() const override { return inner_->op_ring(); }
  void set_name(std::string_view name) override { inner_->set_name(name); }
  uint32_t id() const override { return inner_->id(); }

 private:
  // Transfers belong to the inner communicator, so these are never called.
  bool finish_if_done(int64_t) override { return true; }
  void finish(int64_t) override {}
  void abandon(int64_t) noexcept override {}

  std::unique_ptr<Communicator> owned_;
  Communicator* inner_;
  std::vector<Call> calls_;
};

}  // namespace ptrain
