#include "parallel/comm/collective.h"

#include <algorithm>
#include <cstring>

#include "parallel/comm/ordered_reduce.h"

namespace ptrain {
namespace {

constexpr int64_t alignment = 64;

int64_t aligned(int64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// The part of `run` that belongs to chunk `chunk`.
Bytes chunk_of(Bytes run, int64_t chunk, int64_t chunk_bytes) {
  const int64_t begin = std::min(run.count, chunk * chunk_bytes);
  return {run.data + begin, std::min(chunk_bytes, run.count - begin)};
}

// Where in the scratch what rank `peer` sends for chunk `chunk` arrives.
int64_t slot_offset(int64_t chunk, int peer, int rank, int ranks, int64_t slot_bytes) {
  const int64_t index = peer < rank ? peer : peer - 1;  // this rank needs no slot of its own
  return (chunk % 2 * (ranks - 1) + index) * slot_bytes;
}

// Takes the finished ones out; true when none is left.
bool clear_done(Wire& wire, std::vector<int>& tickets) {
  std::erase_if(tickets, [&](int ticket) {
    if (!wire.is_done(ticket)) return false;
    wire.release(ticket);
    return true;
  });
  return tickets.empty();
}

}  // namespace

// Scratch is cut in slots of a chunk, one for each other rank, twice: while one set is summed up the other is
// on its way.
int64_t reduce_scratch_bytes(int ranks, int64_t part_bytes) {
  const int64_t chunk = reduce_chunk_bytes(ranks);
  const int64_t sets = part_bytes > chunk ? 2 : 1;
  return sets * (ranks - 1) * aligned(std::min(part_bytes, chunk));
}

void Round::clear(int ranks) {
  send.assign(static_cast<size_t>(ranks), {});
  receive.assign(static_cast<size_t>(ranks), {});
  is_reduction = false;
  own = {};
  out = nullptr;
}

int64_t Round::scratch_bytes() const {
  return is_reduction ? reduce_scratch_bytes(static_cast<int>(send.size()), own.count) : 0;
}

void Collective::clear(CommKind kind, int ranks, int tag) {
  kind_ = kind;
  tag_ = tag;
  copy_bytes_ = 0;
  for (Round& round : rounds_) round.clear(ranks);
  round_ = 0;
  posted_ = reduced_ = 0;
  for (std::vector<int>& tickets : tickets_) tickets.clear();
}

void Collective::set_reduction(DType dtype, Reduce reduce, SumOrder order) {
  dtype_ = dtype;
  reduce_ = reduce;
  order_ = order;
}

void Collective::set_copy(const void* from, void* to, int64_t bytes) {
  copy_from_ = from;
  copy_to_ = to;
  copy_bytes_ = from == to ? 0 : bytes;
}

int64_t Collective::scratch_bytes() const {
  return std::max(rounds_[0].scratch_bytes(), rounds_[1].scratch_bytes());
}

bool Collective::advance(Wire& wire, char* scratch, Traffic::Line& traffic) {
  if (copy_bytes_ > 0) {
    std::memmove(copy_to_, copy_from_, static_cast<size_t>(copy_bytes_));
    copy_bytes_ = 0;
  }
  bool has_moved = false;
  while (!is_done()) {
    const Round& round = rounds_[static_cast<size_t>(round_)];
    const int64_t before = posted_ + reduced_;
    const bool is_over =
        round.is_reduction ? advance_reduction(wire, scratch, traffic) : advance_exchange(wire, traffic);
    has_moved = has_moved || is_over || posted_ + reduced_ != before;
    if (!is_over) break;
    ++round_;
    posted_ = reduced_ = 0;
  }
  return has_moved;
}

void Collective::abandon(Wire& wire) noexcept {
  for (std::vector<int>& tickets : tickets_) {
    for (const int ticket : tickets) wire.release(ticket);
    tickets.clear();
  }
}

bool Collective::advance_exchange(Wire& wire, Traffic::Line& traffic) {
  if (posted_ == 0) post_exchange(wire, traffic);
  posted_ = 1;
  return clear_done(wire, tickets_[0]);
}

void Collective::post_exchange(Wire& wire, Traffic::Line& traffic) {
  const Round& round = rounds_[static_cast<size_t>(round_)];
  const int ranks = wire.size();
  // Each rank begins with its right neighbour, so that not all of them send to rank 0 first.
  for (int step = 1; step < ranks; ++step) {
    const int from = (wire.rank() - step + ranks) % ranks;
    const Bytes bytes = round.receive[static_cast<size_t>(from)];
    if (bytes.count > 0) tickets_[0].push_back(wire.post_receive(bytes.data, bytes.count, from, tag_));
  }
  for (int step = 1; step < ranks; ++step) {
    const int to = (wire.rank() + step) % ranks;
    send(wire, round.send[static_cast<size_t>(to)], to, traffic, tickets_[0]);
  }
}

// Two chunks are under way at a time: while one is summed up the next one travels. A slot is used again only
// after its sum, and a chunk is summed only after this rank's own sends of it are out, because in an
// all_reduce the sum is written over what is sent.
bool Collective::advance_reduction(Wire& wire, char* scratch, Traffic::Line& traffic) {
  const int64_t chunks = num_chunks(wire.size());
  while (reduced_ < chunks) {
    while (posted_ < std::min(reduced_ + 2, chunks)) {
      post_chunk(wire, scratch, traffic);
      ++posted_;
    }
    if (!clear_done(wire, tickets_[static_cast<size_t>(reduced_ % 2)])) return false;
    reduce_chunk(wire, scratch);
    ++reduced_;
  }
  return true;
}

int64_t Collective::num_chunks(int ranks) const {
  const Round& round = rounds_[static_cast<size_t>(round_)];
  const int64_t chunk = reduce_chunk_bytes(ranks);
  int64_t longest = round.own.count;
  for (const Bytes& bytes : round.send) longest = std::max(longest, bytes.count);
  return (longest + chunk - 1) / chunk;
}

void Collective::post_chunk(Wire& wire, char* scratch, Traffic::Line& traffic) {
  const Round& round = rounds_[static_cast<size_t>(round_)];
  const int ranks = wire.size();
  const int64_t chunk_bytes = reduce_chunk_bytes(ranks);
  const int64_t slot_bytes = aligned(std::min(round.own.count, chunk_bytes));
  std::vector<int>& tickets = tickets_[static_cast<size_t>(posted_ % 2)];
  const int64_t expected = chunk_of(round.own, posted_, chunk_bytes).count;
  for (int step = 1; step < ranks && expected > 0; ++step) {
    const int from = (wire.rank() - step + ranks) % ranks;
    char* slot = scratch + slot_offset(posted_, from, wire.rank(), ranks, slot_bytes);
    tickets.push_back(wire.post_receive(slot, expected, from, tag_));
  }
  for (int step = 1; step < ranks; ++step) {
    const int to = (wire.rank() + step) % ranks;
    send(wire, chunk_of(round.send[static_cast<size_t>(to)], posted_, chunk_bytes), to, traffic, tickets);
  }
}

void Collective::reduce_chunk(const Wire& wire, const char* scratch) {
  const Round& round = rounds_[static_cast<size_t>(round_)];
  const int ranks = wire.size();
  const int64_t chunk_bytes = reduce_chunk_bytes(ranks);
  const int64_t slot_bytes = aligned(std::min(round.own.count, chunk_bytes));
  const Bytes own = chunk_of(round.own, reduced_, chunk_bytes);
  if (own.count == 0) return;
  sources_.clear();
  for (int rank = 0; rank < ranks; ++rank) {
    sources_.push_back(rank == wire.rank()
                           ? own.data
                           : scratch + slot_offset(reduced_, rank, wire.rank(), ranks, slot_bytes));
  }
  reduce_in_order(sources_, round.out + reduced_ * chunk_bytes, own.count / size_bytes(dtype_), dtype_,
                  reduce_, order_);
}

void Collective::send(Wire& wire, Bytes bytes, int peer, Traffic::Line& traffic, std::vector<int>& tickets) {
  if (bytes.count == 0) return;
  tickets.push_back(wire.post_send(bytes.data, bytes.count, peer, tag_));
  ++traffic.messages;
  traffic.bytes += bytes.count;
}

}  // namespace ptrain
