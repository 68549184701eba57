#include "parallel/comm/wired_comm.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "kernels/base/rng.h"
#include "parallel/comm/clock.h"
#include "parallel/comm/op_ring.h"
#include "parallel/comm/ordered_reduce.h"
#include "parallel/plan/layout.h"

namespace ptrain {
namespace {

// Up to here the root of a broadcast sends to everybody itself; above, it hands out parts that the ranks
// spread, so that its own wire carries the tensor about twice and not P - 1 times.
constexpr int64_t small_broadcast_bytes = 64 << 10;

constexpr int first_collective_tag = num_lanes;
constexpr int num_collective_tags = 1 << 14;
char barrier_token = 0;  // a barrier's messages hold nothing, but an empty one would not be sent

int tag_of(Lane lane) {
  return static_cast<int>(lane);
}

char* bytes_at(const Tensor& tensor, int64_t element) {
  return static_cast<char*>(tensor.data) + element * size_bytes(tensor.dtype);
}

Bytes part_bytes(const Tensor& tensor, Range part) {
  return {bytes_at(tensor, part.begin), part.count * size_bytes(tensor.dtype)};
}

int64_t total(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Ids of transfers: messages are even, collectives odd and counted in the order of their calls.
int64_t id_of_collective(int64_t sequence) {
  return sequence * 2 + 1;
}

std::vector<int> all_ranks(int size) {
  std::vector<int> ranks(static_cast<size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

}  // namespace

int64_t all_reduce_scratch_bytes(int ranks, int64_t bytes) {
  if (bytes <= small_all_reduce_bytes) return reduce_scratch_bytes(ranks, bytes);
  const int64_t largest_element = 8;
  return reduce_scratch_bytes(ranks, bytes / ranks + largest_element);
}

WiredCommunicator::WiredCommunicator(std::unique_ptr<Wire> wire, std::function<double()> now_s)
    : wire_(std::move(wire)),
      family_(std::make_shared<Family>()),
      id_(0),
      world_ranks_(all_ranks(wire_->size())),
      name_("world") {
  family_->now_s = now_s ? std::move(now_s) : host_clock().now_s;
  family_->members.push_back(this);
}

WiredCommunicator::WiredCommunicator(std::unique_ptr<Wire> wire, std::shared_ptr<Family> family, uint32_t id,
                                     std::vector<int> world_ranks, std::string name)
    : wire_(std::move(wire)),
      family_(std::move(family)),
      id_(id),
      world_ranks_(std::move(world_ranks)),
      name_(std::move(name)) {
  family_->members.push_back(this);
  join_ring();
}

WiredCommunicator::~WiredCommunicator() {
  if (family_->ring != nullptr) family_->ring->remove_group(op_group_);
  std::erase(family_->members, this);
}

// --- Collectives -------------------------------------------------------------------------------------------

void WiredCommunicator::prepare_all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  check_tensor(inout, "inout");
  check(can_reduce(inout.dtype, reduce), "no such reduction over ranks for {}", name_of(inout.dtype));
  Collective& collective = prepare(CommKind::all_reduce);
  collective.set_reduction(inout.dtype, reduce, order);
  if (size() == 1) return;
  Round& first = collective.round(0);
  Round& second = collective.round(1);
  const bool is_small = inout.bytes() <= small_all_reduce_bytes;
  const Bytes everything = part_bytes(inout, {0, inout.numel()});
  first.is_reduction = true;
  first.own = is_small ? everything : part_bytes(inout, part_of(inout.numel(), rank(), size()));
  first.out = first.own.data;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const auto p = static_cast<size_t>(peer);
    first.send[p] = is_small ? everything : part_bytes(inout, part_of(inout.numel(), peer, size()));
    if (is_small) continue;
    second.send[p] = first.own;
    second.receive[p] = first.send[p];
  }
}

void WiredCommunicator::all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  prepare_all_reduce(inout, reduce, order);
  run_prepared();
}

Transfer WiredCommunicator::start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  prepare_all_reduce(inout, reduce, order);
  return Transfer(this, enqueue());
}

void WiredCommunicator::prepare_all_gather(Tensor part, Tensor whole, std::span<const int64_t> counts) {
  check_tensor(part, "part");
  check_tensor(whole, "whole");
  check(part.dtype == whole.dtype, "all_gather of {} into {}", name_of(part.dtype), name_of(whole.dtype));
  const bool is_equal = counts.empty();
  check(is_equal || std::ssize(counts) == size(), "{} counts for {} ranks", counts.size(), size());
  const auto count_of = [&](int peer) { return is_equal ? part.numel() : counts[static_cast<size_t>(peer)]; };
  const int64_t expected = is_equal ? part.numel() * size() : total(counts);
  check(part.numel() == count_of(rank()) && whole.numel() == expected,
        "all_gather: part has {} elements and not {}, or whole {} and not {}", part.numel(), count_of(rank()),
        whole.numel(), expected);

  Collective& collective = prepare(CommKind::all_gather);
  Round& round = collective.round(0);
  int64_t begin = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const auto p = static_cast<size_t>(peer);
    const Bytes place = part_bytes(whole, {begin, count_of(peer)});
    begin += count_of(peer);
    if (peer == rank()) {
      collective.set_copy(part.data, place.data, place.count);
    } else {
      round.send[p] = part_bytes(part, {0, part.numel()});
      round.receive[p] = place;
    }
  }
}

void WiredCommunicator::all_gather(Tensor part, Tensor whole) {
  prepare_all_gather(part, whole, {});
  run_prepared();
}

Transfer WiredCommunicator::start_all_gather(Tensor part, Tensor whole) {
  prepare_all_gather(part, whole, {});
  return Transfer(this, enqueue());
}

void WiredCommunicator::all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) {
  check(std::ssize(counts) == size(), "{} counts for {} ranks", counts.size(), size());
  prepare_all_gather(part, whole, counts);
  run_prepared();
}

void WiredCommunicator::prepare_reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  check_tensor(whole, "whole");
  check_tensor(part, "part");
  check(part.dtype == whole.dtype && can_reduce(part.dtype, Reduce::sum), "reduce_scatter of {} into {}",
        name_of(whole.dtype), name_of(part.dtype));
  const int64_t count = part.numel();
  check(whole.numel() == count * size(), "reduce_scatter: {} elements are not {} parts of {}", whole.numel(),
        size(), count);
  Collective& collective = prepare(CommKind::reduce_scatter);
  collective.set_reduction(part.dtype, Reduce::sum, order);
  Round& round = collective.round(0);
  round.is_reduction = true;
  round.own = part_bytes(whole, {rank() * count, count});
  round.out = static_cast<char*>(part.data);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) round.send[static_cast<size_t>(peer)] = part_bytes(whole, {peer * count, count});
  }
}

void WiredCommunicator::reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  prepare_reduce_scatter(whole, part, order);
  run_prepared();
}

Transfer WiredCommunicator::start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  prepare_reduce_scatter(whole, part, order);
  return Transfer(this, enqueue());
}

void WiredCommunicator::broadcast(Tensor tensor, int root) {
  check_tensor(tensor, "tensor");
  check_rank(root, "root");
  Collective& collective = prepare(CommKind::broadcast);
  Round& first = collective.round(0);
  Round& second = collective.round(1);
  const bool is_small = tensor.bytes() <= small_broadcast_bytes || size() == 2;
  const Bytes everything = part_bytes(tensor, {0, tensor.numel()});
  const auto part = [&](int of) { return part_bytes(tensor, part_of(tensor.numel(), of, size())); };
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const auto p = static_cast<size_t>(peer);
    if (rank() == root) first.send[p] = is_small ? everything : part(peer);
    if (peer == root) first.receive[p] = is_small ? everything : part(rank());
    if (is_small) continue;
    if (peer != root) second.send[p] = part(rank());
    if (rank() != root) second.receive[p] = part(peer);
  }
  run_prepared();
}

void WiredCommunicator::all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                                          std::span<const int64_t> receive_counts) {
  check_tensor(send, "send");
  check_tensor(receive, "receive");
  check(std::ssize(send_counts) == size() && std::ssize(receive_counts) == size(),
        "all_to_all: {} and {} counts for {} ranks", send_counts.size(), receive_counts.size(), size());
  const auto self = static_cast<size_t>(rank());
  check(send.dtype == receive.dtype && send.numel() == total(send_counts) &&
            receive.numel() == total(receive_counts) && send_counts[self] == receive_counts[self],
        "all_to_all: the counts do not fit {} elements to send or {} to receive", send.numel(),
        receive.numel());
  Collective& collective = prepare(CommKind::all_to_all);
  Round& round = collective.round(0);
  int64_t sent = 0;
  int64_t received = 0;
  for (size_t p = 0; p < send_counts.size(); ++p) {
    const Bytes from = part_bytes(send, {sent, send_counts[p]});
    const Bytes to = part_bytes(receive, {received, receive_counts[p]});
    sent += send_counts[p];
    received += receive_counts[p];
    if (p == self) {
      collective.set_copy(from.data, to.data, from.count);
    } else {
      round.send[p] = from;
      round.receive[p] = to;
    }
  }
  run_prepared();
}

void WiredCommunicator::barrier() {
  Round& round = prepare(CommKind::barrier).round(0);
  barrier_inbox_.resize(static_cast<size_t>(size()));
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    round.send[static_cast<size_t>(peer)] = {&barrier_token, 1};
    round.receive[static_cast<size_t>(peer)] = {&barrier_inbox_[static_cast<size_t>(peer)], 1};
  }
  run_prepared();
}

// --- Point to point ----------------------------------------------------------------------------------------

Transfer WiredCommunicator::isend(Tensor tensor, int peer, Lane lane) {
  check_tensor(tensor, "tensor");
  check_rank(peer, "peer");
  check_nothing_dropped();
  if (peer != rank()) {
    Traffic::Line& line = traffic_[CommKind::point_to_point];
    ++line.calls;
    ++line.messages;
    line.bytes += tensor.bytes();
  }
  return note_message(wire_->post_send(tensor.data, tensor.bytes(), peer, tag_of(lane)), peer, true);
}

Transfer WiredCommunicator::irecv(Tensor tensor, int peer, Lane lane) {
  check_tensor(tensor, "tensor");
  check_rank(peer, "peer");
  check_nothing_dropped();
  return note_message(wire_->post_receive(tensor.data, tensor.bytes(), peer, tag_of(lane)), peer, false);
}

// --- The queue and its progress ----------------------------------------------------------------------------

Collective& WiredCommunicator::prepare(CommKind kind) {
  check_nothing_dropped();
  if (spare_.empty()) spare_.push_back(std::make_unique<Collective>());
  prepared_ = std::move(spare_.back());
  spare_.pop_back();
  // Every rank counts its calls alike, so the number of a call tells its messages from those of the next.
  const auto tag = static_cast<int>(first_collective_tag + started_ % num_collective_tags);
  prepared_->clear(kind, size(), tag);
  return *prepared_;
}

int64_t WiredCommunicator::enqueue() {
  ++traffic_[prepared_->kind()].calls;
  queue_.push_back(std::move(prepared_));
  const int64_t id = id_of_collective(started_++);
  if (family_->ring != nullptr) family_->ring->enter(op_group_);
  advance();  // the first messages leave now and not at the next poll()
  return id;
}

bool WiredCommunicator::advance() {
  wire_->progress();
  bool has_moved = false;
  while (!queue_.empty()) {
    Collective& first = *queue_.front();
    if (first.scratch_bytes() > scratch_.bytes()) {  // only before its first message: nothing lies in there
      scratch_ = Buffer(first.scratch_bytes());
      ++scratch_growths_;
    }
    has_moved |= first.advance(*wire_, static_cast<char*>(scratch_.data()), traffic_[first.kind()]);
    if (!first.is_done()) break;
    spare_.push_back(std::move(queue_.front()));
    queue_.erase(queue_.begin());
    ++finished_;
  }
  return has_moved;
}

bool WiredCommunicator::advance_family() {
  check_nothing_dropped();
  bool has_moved = false;
  for (WiredCommunicator* member : family_->members) has_moved |= member->advance();
  if (has_moved && family_->ring != nullptr) family_->ring->moved();
  return has_moved;
}

bool WiredCommunicator::is_finished(int64_t transfer) const {
  if (transfer % 2 != 0) return transfer / 2 < finished_;
  return wire_->is_done(static_cast<int>(transfer / 2));
}

bool WiredCommunicator::finish_if_done(int64_t transfer) {
  advance_family();
  if (!is_finished(transfer)) return false;
  release(transfer);
  return true;
}

void WiredCommunicator::finish(int64_t transfer) {
  if (!is_finished(transfer)) wait(transfer);
  release(transfer);
}

void WiredCommunicator::abandon(int64_t transfer) noexcept {
  if (!is_finished(transfer)) {
    // Usually an exception is on its way and the tensors go next: nobody may write to them any more.
    family_->has_dropped = true;
    for (const std::unique_ptr<Collective>& collective : queue_) collective->abandon(*wire_);
    queue_.clear();
  }
  release(transfer);
}

// --- Groups, memory, checks --------------------------------------------------------------------------------

std::unique_ptr<Communicator> WiredCommunicator::split(int color, int key) {
  std::vector<int64_t> choices(static_cast<size_t>(size()) * 2);
  int64_t mine[2] = {color, key};
  all_gather(Tensor(mine, {2}, DType::i64), Tensor(choices.data(), {std::ssize(choices)}, DType::i64));
  std::vector<int> members;
  for (int peer = 0; peer < size(); ++peer) {
    if (color >= 0 && choices[static_cast<size_t>(peer) * 2] == color) members.push_back(peer);
  }
  std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
    return choices[static_cast<size_t>(a) * 2 + 1] < choices[static_cast<size_t>(b) * 2 + 1];
  });
  std::unique_ptr<Wire> wire = wire_->split(color, members);
  // Every rank splits in the same order: the number of the split and the color tell the groups apart.
  const std::string which = fmt::format("{} {} {}", id_, splits_++, color);
  if (wire == nullptr) return nullptr;
  std::vector<int> world_ranks;
  for (const int member : members) world_ranks.push_back(world_ranks_[static_cast<size_t>(member)]);
  return std::unique_ptr<Communicator>(
      new WiredCommunicator(std::move(wire), family_, static_cast<uint32_t>(hash_of(which)),
                            std::move(world_ranks), fmt::format("a group of {}", members.size())));
}

void WiredCommunicator::reserve(int64_t bytes) {
  check(queue_.empty(), "room for reductions is to be reserved while none is under way");
  if (bytes > scratch_.bytes()) scratch_ = Buffer(bytes);
}

void WiredCommunicator::check_nothing_dropped() const {
  check(!family_->has_dropped, "a transfer was dropped before it was done");
}

void WiredCommunicator::check_tensor(const Tensor& tensor, const char* name) const {
  check(tensor.is_contiguous() && tensor.device.kind == DeviceKind::cpu,
        "{} of shape {} must be contiguous and on the CPU to be sent", name, to_string(tensor.shape));
}

void WiredCommunicator::check_rank(int rank, const char* name) const {
  check(rank >= 0 && rank < size(), "{} is {}, but there are {} ranks", name, rank, size());
}

}  // namespace ptrain
