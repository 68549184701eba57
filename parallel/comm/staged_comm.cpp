#include "parallel/comm/staged_comm.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ptrain {
namespace {

int64_t total(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

/// What of `count` elements travels in the piece that begins at `begin` and has room for `room`.
int64_t in_piece(int64_t count, int64_t begin, int64_t room) {
  return std::clamp<int64_t>(count - begin, 0, room);
}

}  // namespace

Staging::Staging(Device device, const Stream& compute, int64_t bytes)
    : device(device), compute(compute), pinned(Buffer::staging(bytes, device)) {}

StagedComm::StagedComm(Communicator& host, std::shared_ptr<Staging> staging)
    : host_(host), staging_(std::move(staging)) {}

StagedComm::StagedComm(std::unique_ptr<Communicator> host, std::shared_ptr<Staging> staging)
    : owned_host_(std::move(host)), host_(*owned_host_), staging_(std::move(staging)) {}

StagedComm::~StagedComm() = default;

// --- Pieces ------------------------------------------------------------------------------------------------

bool StagedComm::is_on_device(std::initializer_list<const Tensor*> tensors) const {
  const DeviceKind kind = (*tensors.begin())->device.kind;
  for (const Tensor* tensor : tensors) {
    check(tensor->is_contiguous(), "{} of shape {} must be contiguous to be sent", name_of(tensor->dtype),
          to_string(tensor->shape));
    check(tensor->device.kind == kind, "one tensor of a communication lies on a CPU, the other on a device");
  }
  return kind == DeviceKind::cuda;
}

/// Elements of each of `parts` parts for which there is room at once; the same on every rank.
int64_t StagedComm::piece_elements(DType dtype, int64_t parts) const {
  const int64_t elements = staging_->pinned.bytes() / (parts * size_bytes(dtype));
  check(elements > 0, ExitCode::usage, "{} bytes of pinned memory are too few for {} ranks",
        staging_->pinned.bytes(), parts);
  return elements;
}

Tensor StagedComm::pinned(int64_t begin, int64_t elements, DType dtype) const {
  return Tensor(static_cast<char*>(staging_->pinned.data()) + begin * size_bytes(dtype), {elements}, dtype);
}

void StagedComm::move(void* to, const void* from, int64_t elements, DType dtype) const {
  if (elements > 0) runtime::copy_async(to, from, elements * size_bytes(dtype), staging_->compute.native());
}

// Every collective below goes piece by piece: device to pinned memory; the host waits for that copy (hazard:
// the host communicator reads it); the collective; pinned memory to device; the host waits again before the
// next piece (hazard: it overwrites what that copy reads).

void StagedComm::all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  if (!is_on_device({&inout})) return host_.all_reduce(inout, reduce, order);
  const int64_t room = piece_elements(inout.dtype, 1);
  for (int64_t begin = 0; begin < inout.numel(); begin += room) {
    const Tensor piece = pinned(0, in_piece(inout.numel(), begin, room), inout.dtype);
    move(piece.data, inout.at(begin), piece.numel(), inout.dtype);
    wait_for_device();
    host_.all_reduce(piece, reduce, order);
    move(inout.at(begin), piece.data, piece.numel(), inout.dtype);
    wait_for_device();
  }
}

void StagedComm::all_gather(Tensor part, Tensor whole) {
  if (!is_on_device({&part, &whole})) return host_.all_gather(part, whole);
  const std::vector<int64_t> counts(static_cast<size_t>(size()), part.numel());
  all_gather_varied(part, whole, counts);
}

void StagedComm::all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) {
  if (!is_on_device({&part, &whole})) return host_.all_gather_varied(part, whole, counts);
  check(std::ssize(counts) == size() && part.dtype == whole.dtype && whole.numel() == total(counts) &&
            part.numel() == counts[static_cast<size_t>(rank())],
        "all_gather: {} counts with a sum of {} do not fit {} ranks, a part of {} and a whole of {}",
        counts.size(), total(counts), size(), part.numel(), whole.numel());
  const int64_t room = piece_elements(part.dtype, size());
  const int64_t longest = *std::ranges::max_element(counts);
  std::vector<int64_t> now(counts.size());
  for (int64_t begin = 0; begin < longest; begin += room) {
    for (size_t p = 0; p < now.size(); ++p) now[p] = in_piece(counts[p], begin, room);
    const auto self = static_cast<size_t>(rank());
    const Tensor all = pinned(0, total(now), part.dtype);
    const Tensor own =
        pinned(total(std::span(now).first(self)), now[self], part.dtype);  // at its place in `all`
    move(own.data, part.at(begin), own.numel(), part.dtype);
    wait_for_device();
    host_.all_gather_varied(own, all, now);
    int64_t from = 0, to = 0;
    for (size_t p = 0; p < now.size(); ++p) {
      move(whole.at(to + begin), all.at(from), now[p], part.dtype);
      from += now[p];
      to += counts[p];
    }
    wait_for_device();
  }
}

void StagedComm::reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  if (!is_on_device({&whole, &part})) return host_.reduce_scatter(whole, part, order);
  check(part.dtype == whole.dtype && whole.numel() == part.numel() * size(),
        "reduce_scatter of {} {} into {} {} on each of {} ranks", whole.numel(), name_of(whole.dtype),
        part.numel(), name_of(part.dtype), size());
  const int64_t room = piece_elements(part.dtype, size());
  for (int64_t begin = 0; begin < part.numel(); begin += room) {
    const int64_t count = in_piece(part.numel(), begin, room);
    const Tensor all = pinned(0, count * size(), part.dtype);
    for (int p = 0; p < size(); ++p)
      move(all.at(p * count), whole.at(p * part.numel() + begin), count, part.dtype);
    wait_for_device();
    const Tensor own = pinned(rank() * count, count, part.dtype);
    host_.reduce_scatter(all, own, order);
    move(part.at(begin), own.data, count, part.dtype);
    wait_for_device();
  }
}

void StagedComm::broadcast(Tensor tensor, int root) {
  if (!is_on_device({&tensor})) return host_.broadcast(tensor, root);
  const int64_t room = piece_elements(tensor.dtype, 1);
  for (int64_t begin = 0; begin < tensor.numel(); begin += room) {
    const Tensor piece = pinned(0, in_piece(tensor.numel(), begin, room), tensor.dtype);
    if (rank() == root) {
      move(piece.data, tensor.at(begin), piece.numel(), tensor.dtype);
      wait_for_device();
    }
    host_.broadcast(piece, root);
    if (rank() != root) {
      move(tensor.at(begin), piece.data, piece.numel(), tensor.dtype);
      wait_for_device();
    }
  }
}

void StagedComm::all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                                   std::span<const int64_t> receive_counts) {
  if (!is_on_device({&send, &receive}))
    return host_.all_to_all_varied(send, send_counts, receive, receive_counts);
  check(std::ssize(send_counts) == size() && std::ssize(receive_counts) == size() &&
            send.dtype == receive.dtype && send.numel() == total(send_counts) &&
            receive.numel() == total(receive_counts),
        "all_to_all: the counts do not fit {} elements to send or {} to receive over {} ranks", send.numel(),
        receive.numel(), size());
  const int64_t room = piece_elements(send.dtype, 2 * size());
  // A rank does not know the counts between others: all agree on the longest, so that all do as many pieces.
  int64_t longest =
      std::max(*std::ranges::max_element(send_counts), *std::ranges::max_element(receive_counts));
  host_.all_reduce(Tensor(&longest, {1}, DType::i64), Reduce::max);
  std::vector<int64_t> out(send_counts.size()), in(send_counts.size());
  for (int64_t begin = 0; begin < longest; begin += room) {
    int64_t from = 0, packed = 0;
    for (size_t p = 0; p < out.size(); ++p) {
      out[p] = in_piece(send_counts[p], begin, room);
      in[p] = in_piece(receive_counts[p], begin, room);
      move(pinned(packed, out[p], send.dtype).data, send.at(from + begin), out[p], send.dtype);
      from += send_counts[p];
      packed += out[p];
    }
    wait_for_device();
    const Tensor arrived = pinned(room * size(), total(in), send.dtype);
    host_.all_to_all_varied(pinned(0, packed, send.dtype), out, arrived, in);
    int64_t to = 0, unpacked = 0;
    for (size_t p = 0; p < in.size(); ++p) {
      move(receive.at(to + begin), arrived.at(unpacked), in[p], send.dtype);
      to += receive_counts[p];
      unpacked += in[p];
    }
    wait_for_device();
  }
}

Transfer StagedComm::start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  if (!is_on_device({&inout})) return host_.start_all_reduce(inout, reduce, order);
  all_reduce(inout, reduce, order);
  return {};
}

Transfer StagedComm::start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  if (!is_on_device({&whole, &part})) return host_.start_reduce_scatter(whole, part, order);
  reduce_scatter(whole, part, order);
  return {};
}

Transfer StagedComm::start_all_gather(Tensor part, Tensor whole) {
  if (!is_on_device({&part, &whole})) return host_.start_all_gather(part, whole);
  all_gather(part, whole);
  return {};
}

// --- Point to point ----------------------------------------------------------------------------------------

int StagedComm::take_message(int64_t bytes) {
  size_t place = 0;
  while (place < messages_.size() && (messages_[place].is_taken || messages_[place].pinned.bytes() < bytes))
    ++place;
  if (place == messages_.size()) {
    ++message_growths_;
    messages_.emplace_back().pinned = Buffer::staging(bytes, staging_->device);
  }
  messages_[place].is_taken = true;
  return static_cast<int>(place);
}

Transfer StagedComm::isend(Tensor tensor, int peer, Lane lane) {
  if (!is_on_device({&tensor})) return host_.isend(tensor, peer, lane);
  const int number = take_message(tensor.bytes());
  Message& message = messages_[static_cast<size_t>(number)];
  move(message.pinned.data(), tensor.data, tensor.numel(), tensor.dtype);
  wait_for_device();  // hazard: the host communicator reads the copy
  message.host = host_.isend(Tensor(message.pinned.data(), tensor.shape, tensor.dtype), peer, lane);
  return Transfer(this, number);
}

Transfer StagedComm::irecv(Tensor tensor, int peer, Lane lane) {
  if (!is_on_device({&tensor})) return host_.irecv(tensor, peer, lane);
  const int number = take_message(tensor.bytes());
  Message& message = messages_[static_cast<size_t>(number)];
  message.to = tensor;
  message.host = host_.irecv(Tensor(message.pinned.data(), tensor.shape, tensor.dtype), peer, lane);
  return Transfer(this, number);
}

/// The host's part is done: to the device with what came, and the message's memory is free again.
void StagedComm::arrive(Message& message) {
  if (message.to) {
    move(message.to.data, message.pinned.data(), message.to.numel(), message.to.dtype);
    wait_for_device();  // hazard: the next message overwrites the pinned memory
    message.to = {};
  }
  message.is_taken = false;
}

void StagedComm::finish(int64_t transfer) {
  Message& message = messages_[static_cast<size_t>(transfer)];
  message.host.wait();
  arrive(message);
}

bool StagedComm::finish_if_done(int64_t transfer) {
  Message& message = messages_[static_cast<size_t>(transfer)];
  if (!message.host.is_done()) return false;
  arrive(message);
  return true;
}

void StagedComm::abandon(int64_t transfer) noexcept {
  // The host communicator says at its next call what was dropped. The memory stays: it may still be written.
  Message& message = messages_[static_cast<size_t>(transfer)];
  const Transfer dropped = std::move(message.host);
}

std::unique_ptr<Communicator> StagedComm::split(int color, int key) {
  std::unique_ptr<Communicator> host = host_.split(color, key);
  if (host == nullptr) return nullptr;
  return std::make_unique<StagedComm>(std::move(host), staging_);
}

}  // namespace ptrain
