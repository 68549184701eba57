// How WiredCommunicator waits, and what it tells the ring of operations; declared in wired_comm.h.
#include "kernels/base/fault.h"
#include "parallel/comm/op_ring.h"
#include "parallel/comm/wired_comm.h"

namespace ptrain {

void WiredCommunicator::join_ring() {
  op_group_ = family_->ring == nullptr ? -1 : family_->ring->add_group(id_, name_, size(), started_);
}

void WiredCommunicator::set_op_ring(OpRing* ring) {
  for (WiredCommunicator* member : family_->members) {
    if (family_->ring != nullptr) family_->ring->remove_group(member->op_group_);
  }
  family_->ring = ring;
  for (WiredCommunicator* member : family_->members) member->join_ring();
}

void WiredCommunicator::set_name(std::string_view name) {
  name_ = name;
  if (family_->ring != nullptr) family_->ring->name_group(op_group_, name_);
}

/// A message that sets out: whom it goes to or comes from is kept for who waits for it.
Transfer WiredCommunicator::note_message(int ticket, int peer, bool is_send) {
  if (ticket >= std::ssize(messages_)) messages_.resize(static_cast<size_t>(ticket) + 1);
  messages_[static_cast<size_t>(ticket)] = {peer, is_send};
  return Transfer(this, int64_t{ticket} * 2);
}

/// What a rank does that waits for this one.
Op WiredCommunicator::op_of(int64_t transfer) const {
  const int64_t number = transfer / 2;
  const bool is_collective = transfer % 2 != 0;
  if (is_collective) {
    return {.name = name_of(queue_[static_cast<size_t>(number - finished_)]->kind()).data(),
            .wait = OpWait::collective,
            .group = static_cast<int16_t>(op_group_),
            .sequence = number};
  }
  const Message& message = messages_[static_cast<size_t>(number)];
  return {.name = message.is_send ? "send" : "receive",
          .wait = message.is_send ? OpWait::send : OpWait::receive,
          .peer = world_ranks_[static_cast<size_t>(message.peer)]};
}

void WiredCommunicator::wait(int64_t transfer) {
  const OpNote note(family_->ring, op_of(transfer));
  const int64_t step = family_->ring == nullptr ? 0 : family_->ring->step();
  fault::point(transfer % 2 != 0 ? "in_collective" : "in_message", step);
  const double begin_s = family_->now_s();
  for (int times = 0; !is_finished(transfer);) {
    if (advance_family()) {
      times = 0;
    } else if (!is_finished(transfer)) {
      wire_->relax(times++);
    }
  }
  family_->waited_s += family_->now_s() - begin_s;
}

}  // namespace ptrain
