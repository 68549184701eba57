#include "parallel/comm/device_comm.h"

#include <numeric>
#include <utility>

namespace ptrain {
namespace {

int64_t total(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

TransferLane plan_lane(Lane lane) {
  return lane == Lane::activation ? TransferLane::activation
         : lane == Lane::gradient ? TransferLane::gradient
                                  : TransferLane::tied;
}
Lane wire_lane(TransferLane lane) {
  return lane == TransferLane::activation ? Lane::activation
         : lane == TransferLane::gradient ? Lane::gradient
                                          : Lane::control;
}

}  // namespace

DeviceComm::DeviceComm(Communicator& host, std::unique_ptr<NcclComm> nccl,
                       std::shared_ptr<DeviceQueues> queues, const NcclConfig& config, std::string name)
    : host_(host),
      nccl_(std::move(nccl)),
      queues_(std::move(queues)),
      config_(config),
      name_(std::move(name)),
      background_(queues_->device(), runtime::Priority::high),
      last_started_(queues_->device()) {
  check((nccl_ != nullptr) == (host_.size() > 1), "{} has {} ranks and {} NCCL", name_, host_.size(),
        nccl_ == nullptr ? "no" : "an");
  if (nccl_ != nullptr) queues_->add(*nccl_, name_);
  join_ring(host_.op_ring());
}

DeviceComm::~DeviceComm() {
  join_ring(nullptr);
  if (nccl_ != nullptr) queues_->remove(*nccl_);
  for (const EdgeLane& lane : lanes_) queues_->remove(*lane.comm);
}

// --- Collectives -------------------------------------------------------------------------------------------

bool DeviceComm::is_on_device(std::initializer_list<const Tensor*> tensors) const {
  check(!queues_->has_dropped, "a transfer was dropped before it was waited for");
  const DeviceKind kind = (*tensors.begin())->device.kind;
  for (const Tensor* tensor : tensors) {
    check(tensor->is_contiguous(), "{} of shape {} must be contiguous to be sent", name_of(tensor->dtype),
          to_string(tensor->shape));
    check(tensor->device.kind == kind, "one tensor of a communication lies on a CPU, the other on a device");
  }
  return kind == DeviceKind::cuda;
}

runtime::NativeStream DeviceComm::compute_in_order() {
  // Hazard: a communicator's operations must run in one order on all ranks. What was started on the
  // background stream and not waited for yet must not be overtaken.
  if (has_started_) queues_->compute().wait(last_started_);
  has_started_ = false;
  return queues_->compute().native();
}

template <class Enqueue>
Transfer DeviceComm::start(const Enqueue& enqueue) {
  const int number = queues_->take_event();
  const Event& event = queues_->event(number);
  // Hazard: the ops that make the tensors, or still read the place of the result, are on the compute stream.
  queues_->compute().record(event);
  background_.wait(event);
  enqueue(background_.native());
  // Closes the other direction: wait() lets compute go on behind this mark; and a blocking collective of this
  // communicator comes behind last_started_.
  background_.record(event);
  background_.record(last_started_);
  has_started_ = true;
  return Transfer(this, number);
}

/// Of two numbers there is one order, and integers and extremes have the same bits in any.
void DeviceComm::check_order(const Tensor& tensor, Reduce reduce, SumOrder order) const {
  const bool has_many =
      order == SumOrder::tree && size() > 2 && reduce == Reduce::sum && is_float(tensor.dtype);
  check(
      !has_many, ExitCode::usage,
      "a sum of {} as a tree over the {} ranks of {}: NCCL has no such order for more than 2; take at most 2 "
      "data ranks on GPUs, or device: cpu, where train.deterministic is grid",
      name_of(tensor.dtype), size(), name_);
}

void DeviceComm::copy_own(const void* from, void* to, int64_t bytes, runtime::NativeStream stream) {
  if (from != to && bytes > 0) runtime::copy_async(to, from, bytes, stream);
}

void DeviceComm::enqueue_all_reduce(Tensor inout, Reduce reduce, runtime::NativeStream stream) {
  const int64_t ranks = size();
  count(CommKind::all_reduce, 2 * (ranks - 1), 2 * (inout.bytes() * (ranks - 1) / ranks));
  if (nccl_ == nullptr || inout.numel() == 0) return;
  nccl_->all_reduce(inout.data, inout.data, inout.numel(), inout.dtype, reduce, stream);
}

void DeviceComm::all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  if (!is_on_device({&inout})) return host_.all_reduce(inout, reduce, order);
  check_order(inout, reduce, order);
  enqueue_all_reduce(inout, reduce, compute_in_order());
}

Transfer DeviceComm::start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) {
  if (!is_on_device({&inout})) return host_.start_all_reduce(inout, reduce, order);
  check_order(inout, reduce, order);
  return start([&](runtime::NativeStream stream) { enqueue_all_reduce(inout, reduce, stream); });
}

void DeviceComm::enqueue_all_gather(Tensor part, Tensor whole, runtime::NativeStream stream) {
  check(part.dtype == whole.dtype && whole.numel() == part.numel() * size(),
        "all_gather of {} {} from each of {} ranks into {} {}", part.numel(), name_of(part.dtype), size(),
        whole.numel(), name_of(whole.dtype));
  count(CommKind::all_gather, size() - 1, (size() - 1) * part.bytes());
  if (nccl_ == nullptr) return copy_own(part.data, whole.data, part.bytes(), stream);
  if (part.numel() == 0) return;
  nccl_->all_gather(part.data, whole.data, part.numel(), part.dtype, stream);
}

void DeviceComm::all_gather(Tensor part, Tensor whole) {
  if (!is_on_device({&part, &whole})) return host_.all_gather(part, whole);
  enqueue_all_gather(part, whole, compute_in_order());
}

Transfer DeviceComm::start_all_gather(Tensor part, Tensor whole) {
  if (!is_on_device({&part, &whole})) return host_.start_all_gather(part, whole);
  return start([&](runtime::NativeStream stream) { enqueue_all_gather(part, whole, stream); });
}

void DeviceComm::enqueue_reduce_scatter(Tensor whole, Tensor part, runtime::NativeStream stream) {
  check(part.dtype == whole.dtype && whole.numel() == part.numel() * size(),
        "reduce_scatter of {} {} into {} {} on each of {} ranks", whole.numel(), name_of(whole.dtype),
        part.numel(), name_of(part.dtype), size());
  count(CommKind::reduce_scatter, size() - 1, (size() - 1) * part.bytes());
  if (nccl_ == nullptr) return copy_own(whole.data, part.data, part.bytes(), stream);
  if (part.numel() == 0) return;
  nccl_->reduce_scatter(whole.data, part.data, part.numel(), part.dtype, stream);
}

void DeviceComm::reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  if (!is_on_device({&whole, &part})) return host_.reduce_scatter(whole, part, order);
  check_order(part, Reduce::sum, order);
  enqueue_reduce_scatter(whole, part, compute_in_order());
}

Transfer DeviceComm::start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) {
  if (!is_on_device({&whole, &part})) return host_.start_reduce_scatter(whole, part, order);
  check_order(part, Reduce::sum, order);
  return start([&](runtime::NativeStream stream) { enqueue_reduce_scatter(whole, part, stream); });
}

void DeviceComm::broadcast(Tensor tensor, int root) {
  if (!is_on_device({&tensor})) return host_.broadcast(tensor, root);
  check(root >= 0 && root < size(), "root is {}, but there are {} ranks", root, size());
  // Along a chain: every rank but the last passes the tensor on once.
  const bool is_last = rank() == (root + size() - 1) % size();
  count(CommKind::broadcast, is_last ? 0 : 1, is_last ? 0 : tensor.bytes());
  if (nccl_ == nullptr || tensor.numel() == 0) return;
  nccl_->broadcast(tensor.data, tensor.numel(), tensor.dtype, root, compute_in_order());
}

void DeviceComm::all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) {
  if (!is_on_device({&part, &whole})) return host_.all_gather_varied(part, whole, counts);
  check(std::ssize(counts) == size() && part.dtype == whole.dtype && whole.numel() == total(counts) &&
            part.numel() == counts[static_cast<size_t>(rank())],
        "all_gather_varied: {} counts with a sum of {} do not fit {} ranks, a part of {} and a whole of {}",
        counts.size(), total(counts), size(), part.numel(), whole.numel());
  const runtime::NativeStream stream = compute_in_order();
  const int64_t before = total(counts.first(static_cast<size_t>(rank())));
  copy_own(part.data, whole.at(before), part.bytes(), stream);
  count(CommKind::all_gather, size() - 1, (size() - 1) * part.bytes());
  if (nccl_ == nullptr) return;
  nccl_->group_begin();
  int64_t begin = 0;
  for (int root = 0; root < size(); ++root) {
    const int64_t elements = counts[static_cast<size_t>(root)];
    if (elements > 0) nccl_->broadcast(whole.at(begin), elements, whole.dtype, root, stream);
    begin += elements;
  }
  nccl_->group_end();
}

void DeviceComm::all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                                   std::span<const int64_t> receive_counts) {
  if (!is_on_device({&send, &receive}))
    return host_.all_to_all_varied(send, send_counts, receive, receive_counts);
  const auto self = static_cast<size_t>(rank());
  check(std::ssize(send_counts) == size() && std::ssize(receive_counts) == size() &&
            send.dtype == receive.dtype && send.numel() == total(send_counts) &&
            receive.numel() == total(receive_counts) && send_counts[self] == receive_counts[self],
        "all_to_all: the counts do not fit {} elements to send or {} to receive over {} ranks", send.numel(),
        receive.numel(), size());
  const runtime::NativeStream stream = compute_in_order();
  const auto begin_of = [](std::span<const int64_t> counts, size_t rank) {
    return total(counts.first(rank));
  };
  copy_own(send.at(begin_of(send_counts, self)), receive.at(begin_of(receive_counts, self)),
           send_counts[self] * size_bytes(send.dtype), stream);
  count(CommKind::all_to_all, size() - 1, (send.numel() - send_counts[self]) * size_bytes(send.dtype));
  if (nccl_ == nullptr) return;
  nccl_->group_begin();
  for (size_t peer = 0; peer < send_counts.size(); ++peer) {
    if (peer == self) continue;
    const int p = static_cast<int>(peer);
    if (send_counts[peer] > 0)
      nccl_->send(send.at(begin_of(send_counts, peer)), send_counts[peer], send.dtype, p, stream);
    if (receive_counts[peer] > 0)
      nccl_->receive(receive.at(begin_of(receive_counts, peer)), receive_counts[peer], receive.dtype, p,
                     stream);
  }
  nccl_->group_end();
}

// --- Point to point ----------------------------------------------------------------------------------------

void DeviceComm::open_lanes(std::span<const TransferEdge> edges, const NcclConfig& config) {
  std::vector<TransferEdge> left(edges.begin(), edges.end());
  while (!left.empty()) {
    // 1. As many edges at once as have no rank in common: a split gives every rank one new group at most.
    std::vector<bool> is_taken(static_cast<size_t>(size()));
    const TransferEdge* own = nullptr;
    int own_color = -1, colors = 0;
    std::vector<TransferEdge> round, later;
    for (const TransferEdge& edge : left) {
      const auto from = static_cast<size_t>(edge.from), to = static_cast<size_t>(edge.to);
      check(from != to && from < is_taken.size() && to < is_taken.size(), "{}: a lane from rank {} to {}",
            name_, edge.from, edge.to);
      const bool fits = !is_taken[from] && !is_taken[to];
      (fits ? round : later).push_back(edge);
      if (fits) is_taken[from] = is_taken[to] = true;
    }
    for (const TransferEdge& edge : round) {
      if (edge.from == rank() || edge.to == rank()) {
        own = &edge;
        own_color = colors;
      }
      ++colors;
    }
    // 2. All ranks take part, those without an edge of this round with no color.
    check(nccl_ != nullptr, "{} has no NCCL for its lanes", name_);
    const int key = own != nullptr && own->to == rank() ? 1 : 0;
    std::unique_ptr<NcclComm> comm = nccl_->split(own_color, key, config);
    if (own != nullptr) {
      queues_->add(*comm, fmt::format("{}, {} {} to {}", name_, name_of(own->lane), own->from, own->to));
      lanes_.push_back({.lane = wire_lane(own->lane),
                        .from = own->from,
                        .to = own->to,
                        .comm = std::move(comm),
                        .stream = Stream(queues_->device(), runtime::Priority::high)});
    }
    left = std::move(later);
  }
}

const DeviceComm::EdgeLane& DeviceComm::lane_of(int from, int to, Lane lane) const {
  for (const EdgeLane& candidate : lanes_) {
    if (candidate.from == from && candidate.to == to && candidate.lane == lane) return candidate;
  }
  fail(ExitCode::defect, "{}: no lane was opened for {} from rank {} to {}", name_, name_of(plan_lane(lane)),
       from, to);
}

Transfer DeviceComm::enqueue_message(Tensor tensor, const EdgeLane& lane) {
  const int number = queues_->take_event();
  const Event& event = queues_->event(number);
  // Hazard: compute makes what is sent, and may still read what a receive is about to overwrite.
  queues_->compute().record(event);
  lane.stream.wait(event);
  if (tensor.numel() > 0) {
    if (lane.from == rank()) {
      lane.comm->send(tensor.data, tensor.numel(), tensor.dtype, 1, lane.stream.native());
    } else {
      lane.comm->receive(tensor.data, tensor.numel(), tensor.dtype, 0, lane.stream.native());
    }
  }
  // Compute waits for this mark before it reads what came or overwrites what left: see finish().
  lane.stream.record(event);
  return Transfer(this, number);
}

Transfer DeviceComm::isend(Tensor tensor, int peer, Lane lane) {
  if (!is_on_device({&tensor})) return host_.isend(tensor, peer, lane);
  count(CommKind::point_to_point, 1, tensor.bytes());
  return enqueue_message(tensor, lane_of(rank(), peer, lane));
}

Transfer DeviceComm::irecv(Tensor tensor, int peer, Lane lane) {
  if (!is_on_device({&tensor})) return host_.irecv(tensor, peer, lane);
  return enqueue_message(tensor, lane_of(peer, rank(), lane));
}

void DeviceComm::finish(int64_t transfer) {
  const int number = static_cast<int>(transfer);
  // Hazard: ops that are enqueued from here on use the transfer's tensors.
  queues_->compute().wait(queues_->event(number));
  queues_->give_back(number);
}

bool DeviceComm::finish_if_done(int64_t transfer) {
  finish(transfer);
  return true;
}

void DeviceComm::abandon(int64_t) noexcept {
  queues_->has_dropped = true;  // its event stays taken: what it marks is still under way
}

void DeviceComm::poll() {
  host_.poll();
  queues_->check_members();
}

// --- Groups, memory, counts --------------------------------------------------------------------------------

std::unique_ptr<DeviceComm> DeviceComm::split_group(int color, int key, std::string name) {
  std::unique_ptr<Communicator> host = host_.split(color, key);
  // A rank that stays alone needs no NCCL, but takes part in the call.
  const bool needs_nccl = host != nullptr && host->size() > 1;
  std::unique_ptr<NcclComm> nccl;
  if (nccl_ != nullptr) nccl = nccl_->split(needs_nccl ? color : -1, key, config_);
  if (host == nullptr) return nullptr;
  auto group = std::make_unique<DeviceComm>(*host, std::move(nccl), queues_, config_, std::move(name));
  group->owned_host_ = std::move(host);
  return group;
}

std::unique_ptr<Communicator> DeviceComm::split(int color, int key) {
  return split_group(color, key, fmt::format("a part of {}", name_));
}

bool DeviceComm::register_buffer(void* data, int64_t bytes, Registration registration) {
  if (nccl_ == nullptr || bytes == 0) return false;
  bool has_worked = nccl_->register_buffer(data, bytes, registration);
  if (registration == Registration::symmetric) return has_worked;
  for (const EdgeLane& lane : lanes_) has_worked &= lane.comm->register_buffer(data, bytes, registration);
  return has_worked;
}

const Traffic& DeviceComm::traffic() const {
  sum_ = host_.traffic();
  for (size_t kind = 0; kind < sum_.lines.size(); ++kind) {
    sum_.lines[kind].calls += own_.lines[kind].calls;
    sum_.lines[kind].messages += own_.lines[kind].messages;
    sum_.lines[kind].bytes += own_.lines[kind].bytes;
  }
  return sum_;
}

}  // namespace ptrain
