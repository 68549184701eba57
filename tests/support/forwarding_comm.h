// A communicator that passes everything on, for tests that change or hold back one call of it.
#pragma once

#include <memory>

#include "parallel/comm/communicator.h"

namespace ptrain {

class ForwardingCommunicator : public Communicator {
 public:
  /// inner outlives this.
  explicit ForwardingCommunicator(Communicator& inner) : inner_(&inner) {}
  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner)
      : owned_(std::move(inner)), inner_(owned_.get()) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void all_reduce(Tensor inout, Reduce reduce, SumOrder order) override {
    inner_->all_reduce(inout, reduce, order);
  }
  void all_gather(Tensor part, Tensor whole) override { inner_->all_gather(part, whole); }
  void all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) override {
    inner_->all_gather_varied(part, whole, counts);
  }
  void reduce_scatter(Tensor whole, Tensor part, SumOrder order) override {
    inner_->reduce_scatter(whole, part, order);
  }
  void broadcast(Tensor tensor, int root) override { inner_->broadcast(tensor, root); }
  void all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                         std::span<const int64_t> receive_counts) override {
    inner_->all_to_all_varied(send, send_counts, receive, receive_counts);
  }
  void barrier() override { inner_->barrier(); }
  Transfer start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) override {
    return inner_->start_all_reduce(inout, reduce, order);
  }
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override {
    return inner_->start_reduce_scatter(whole, part, order);
  }
  Transfer start_all_gather(Tensor part, Tensor whole) override {
    return inner_->start_all_gather(part, whole);
  }
  Transfer isend(Tensor tensor, int peer, Lane lane) override { return inner_->isend(tensor, peer, lane); }
  Transfer irecv(Tensor tensor, int peer, Lane lane) override { return inner_->irecv(tensor, peer, lane); }
  void poll() override { inner_->poll(); }
  /// A group of the inner one's own kind: override it where the groups shall be changed too.
  std::unique_ptr<Communicator> split(int color, int key) override { return inner_->split(color, key); }
  void reserve(int64_t bytes) override { inner_->reserve(bytes); }
  int64_t scratch_bytes() const override { return inner_->scratch_bytes(); }
  int64_t scratch_growths() const override { return inner_->scratch_growths(); }
  const Traffic& traffic() const override { return inner_->traffic(); }
  double waited_s() const override { return inner_->waited_s(); }
  void set_op_ring(OpRing* ring) override { inner_->set_op_ring(ring); }
  OpRing* op_ring() const override { return inner_->op_ring(); }
  void set_name(std::string_view name) override { inner_->set_name(name); }
  uint32_t id() const override { return inner_->id(); }

 protected:
  Communicator& inner() { return *inner_; }

 private:
  // Transfers belong to the inner communicator, so these are never called.
  bool finish_if_done(int64_t) override { return true; }
  void finish(int64_t) override {}
  void abandon(int64_t) noexcept override {}

  std::unique_ptr<Communicator> owned_;
  Communicator* inner_;
};

}  // namespace ptrain
