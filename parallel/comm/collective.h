// One collective under way: up to two rounds of messages, in the second of which the reduced parts are
// spread. A small machine that is pushed on by progress(); it never waits.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/wire.h"
#include "parallel/plan/sent.h"

namespace ptrain {

/// A run of bytes that goes to or comes from one rank.
struct Bytes {
  char* data = nullptr;
  int64_t count = 0;
};

/// send[p] goes to rank p. In an exchange receive[p] comes from rank p; in a reduction each rank sends this
/// one own.count bytes, and `out` becomes the ordered reduction of those and `own`. Empty runs cost no
/// message.
struct Round {
  std::vector<Bytes> send;     // by rank; nothing to itself
  std::vector<Bytes> receive;  // by rank; not used by a reduction
  bool is_reduction = false;
  Bytes own;
  char* out = nullptr;

  void clear(int ranks);
  int64_t scratch_bytes() const;  // what a reduction needs
};

class Collective {
 public:
  /// Forgets everything. `tag` tells its messages from those of its neighbours in the queue.
  void clear(CommKind kind, int ranks, int tag);

  CommKind kind() const { return kind_; }
  /// To be filled in before the first advance().
  Round& round(int index) { return rounds_[static_cast<size_t>(index)]; }
  void set_reduction(DType dtype, Reduce reduce, SumOrder order);
  /// A copy inside this rank, done at the start; the two may be the same place.
  void set_copy(const void* from, void* to, int64_t bytes);

  int64_t scratch_bytes() const;
  /// Goes as far as it can without waiting. Returns whether anything moved. `scratch` holds scratch_bytes().
  bool advance(Wire& wire, char* scratch, Traffic::Line& traffic);
  bool is_done() const { return round_ == 2; }
  /// Lets go of its messages.
  void abandon(Wire& wire) noexcept;

 private:
  void post_exchange(Wire& wire, Traffic::Line& traffic);
  void post_chunk(Wire& wire, char* scratch, Traffic::Line& traffic);
  void reduce_chunk(const Wire& wire, const char* scratch);
  bool advance_reduction(Wire& wire, char* scratch, Traffic::Line& traffic);
  bool advance_exchange(Wire& wire, Traffic::Line& traffic);
  void send(Wire& wire, Bytes bytes, int peer, Traffic::Line& traffic, std::vector<int>& tickets);
  int64_t num_chunks(int ranks) const;

  CommKind kind_ = CommKind::barrier;
  int tag_ = 0;
  DType dtype_ = DType::f32;
  Reduce reduce_ = Reduce::sum;
  SumOrder order_ = SumOrder::ranks;
  const void* copy_from_ = nullptr;
  void* copy_to_ = nullptr;
  int64_t copy_bytes_ = 0;

  std::array<Round, 2> rounds_;
  int round_ = 0;
  int64_t posted_ = 0;                       // chunks of this round, or 1 for an exchange
  int64_t reduced_ = 0;                      // chunks
  std::array<std::vector<int>, 2> tickets_;  // by slot: chunk c uses slot c % 2
  std::vector<const void*> sources_;
};

}  // namespace ptrain
