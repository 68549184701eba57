#include "parallel/comm/recording_comm.h"

namespace ptrain {

std::string to_string(const Call& call) {
  std::string text = fmt::format("{} {} {}", name_of(call.kind), call.count, name_of(call.dtype));
  if (call.kind == CommKind::point_to_point) {
    text += fmt::format(" {} {} lane {}", call.is_receive ? "from" : "to", call.peer,
                        static_cast<int>(call.lane));
  } else if (call.peer >= 0) {
    text += fmt::format(" root {}", call.peer);
  }
  if (call.order == SumOrder::tree) text += " as a tree";
  return text;
}

void RecordingCommunicator::all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  calls_.push_back(
      {.kind = CommKind::all_reduce, .count = inout.numel(), .dtype = inout.dtype, .order = order});
  inner_->all_reduce(inout, reduce, order);
}

void RecordingCommunicator::all_gather(Tensor part, Tensor whole) {
  calls_.push_back({.kind = CommKind::all_gather, .count = whole.numel(), .dtype = whole.dtype});
  inner_->all_gather(part, whole);
}

void RecordingCommunicator::all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) {
  calls_.push_back({.kind = CommKind::all_gather, .count = whole.numel(), .dtype = whole.dtype});
  inner_->all_gather_varied(part, whole, counts);
}

void RecordingCommunicator::reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  calls_.push_back(
      {.kind = CommKind::reduce_scatter, .count = whole.numel(), .dtype = whole.dtype, .order = order});
  inner_->reduce_scatter(whole, part, order);
}

void RecordingCommunicator::broadcast(Tensor tensor, int root) {
  calls_.push_back(
      {.kind = CommKind::broadcast, .count = tensor.numel(), .dtype = tensor.dtype, .peer = root});
  inner_->broadcast(tensor, root);
}

void RecordingCommunicator::all_to_all_varied(Tensor send, std::span<const int64_t> send_counts,
                                              Tensor receive, std::span<const int64_t> receive_counts) {
  calls_.push_back({.kind = CommKind::all_to_all, .count = send.numel(), .dtype = send.dtype});
  inner_->all_to_all_varied(send, send_counts, receive, receive_counts);
}

void RecordingCommunicator::barrier() {
  calls_.push_back({.kind = CommKind::barrier});
  inner_->barrier();
}

Transfer RecordingCommunicator::start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  calls_.push_back(
      {.kind = CommKind::all_reduce, .count = inout.numel(), .dtype = inout.dtype, .order = order});
  return inner_->start_all_reduce(inout, reduce, order);
}

Transfer RecordingCommunicator::start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  calls_.push_back(
      {.kind = CommKind::reduce_scatter, .count = whole.numel(), .dtype = whole.dtype, .order = order});
  return inner_->start_reduce_scatter(whole, part, order);
}

Transfer RecordingCommunicator::start_all_gather(Tensor part, Tensor whole) {
  calls_.push_back({.kind = CommKind::all_gather, .count = whole.numel(), .dtype = whole.dtype});
  return inner_->start_all_gather(part, whole);
}

Transfer RecordingCommunicator::isend(Tensor tensor, int peer, Lane lane) {
  calls_.push_back({.kind = CommKind::point_to_point,
                    .count = tensor.numel(),
                    .dtype = tensor.dtype,
                    .peer = peer,
                    .lane = lane});
  return inner_->isend(tensor, peer, lane);
}

Transfer RecordingCommunicator::irecv(Tensor tensor, int peer, Lane lane) {
  calls_.push_back({.kind = CommKind::point_to_point,
                    .count = tensor.numel(),
                    .dtype = tensor.dtype,
                    .peer = peer,
                    .is_receive = true,
                    .lane = lane});
  return inner_->irecv(tensor, peer, lane);
}

std::unique_ptr<Communicator> RecordingCommunicator::split(int color, int key) {
  std::unique_ptr<Communicator> group = inner_->split(color, key);
  if (group == nullptr) return nullptr;
  return std::make_unique<RecordingCommunicator>(std::move(group));
}

}  // namespace ptrain
