// The contract of communication between ranks: collectives, non-blocking transfers and groups. Tensors are
// contiguous and lie on the CPU. Not for gradients of collectives (src/model) nor for plans (parallel/plan).
//
// Every rank of a communicator calls the same collectives in the same order; blocking or started, they run
// one after another in that order. Sums are taken in ascending rank order, ((x0 + x1) + x2) + …, or as a tree
// over the ranks: see SumOrder. So they have the same bits on every rank and on every backend.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "kernels/base/tensor.h"

namespace ptrain {

class Communicator;
class OpRing;

/// Queues of point-to-point messages. What is sent to a peer on a lane arrives in the order of sending and
/// fills that peer's receives in the order of receiving; lanes do not wait for each other.
enum class Lane : uint8_t { activation, gradient, control };
inline constexpr int num_lanes = 3;

/// How values of all ranks become one. max and min give NaN where one value is NaN.
enum class Reduce : uint8_t { sum, max, min };

/// In which order a sum over ranks is taken.
enum class SumOrder : uint8_t {
  /// ((x0 + x1) + x2) + …
  ranks,
  /// Neighbours in pairs, level by level, a leftover passes up: over five ranks ((x0 + x1) + (x2 + x3)) + x4.
  /// Where
  /// every rank's addend is itself such a tree over 2^a numbers, the sum is the tree over all numbers,
  /// whatever
  /// the number of ranks that share them.
  tree,
};

/// What a message was sent for.
enum class CommKind : uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  broadcast,
  all_to_all,
  barrier,
  point_to_point,
};
inline constexpr int num_comm_kinds = 7;
std::string_view name_of(CommKind kind);

/// What this rank sent to other ranks (what it keeps for itself does not count), by kind.
struct Traffic {
  struct Line {
    int64_t calls = 0;     // collectives entered, or sends to another rank
    int64_t messages = 0;  // messages to other ranks, as asked for: a very long one counts once
    int64_t bytes = 0;

    bool operator==(const Line&) const = default;
  };

  Line& operator[](CommKind kind) { return lines[static_cast<size_t>(kind)]; }
  const Line& operator[](CommKind kind) const { return lines[static_cast<size_t>(kind)]; }

  std::array<Line, num_comm_kinds> lines{};
};

/// Something under way: a send, a receive or a started collective. Its tensors must stay where they are and
/// must not be touched (sent ones: not be written) until it is done. Move-only; one that was made by default
/// is done. Dropping an unfinished one is a defect: the communicator's next call throws an Error that says
/// so.
class Transfer {
 public:
  Transfer() = default;
  Transfer(Communicator* owner, int64_t id) : owner_(owner), id_(id) {}
  Transfer(Transfer&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), id_(other.id_) {}
  Transfer& operator=(Transfer&& other) noexcept;
  ~Transfer();

  /// Makes progress with everything that is under way; true once this one is done.
  bool is_done();
  void wait();

 private:
  Communicator* owner_ = nullptr;
  int64_t id_ = 0;
};

/// A group of ranks and the wires between them.
/// Errors: ExitCode::defect for tensors that do not fit the call; what goes wrong on the wire by its cause.
class Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // --- Collectives ---------------------------------------------------------------------------------------
  // Reductions take f32, f64, bf16 and f16 (summed as f32, rounded once), i32, i64 and u8 (u8 only max and
  // min); the others move every dtype.

  /// inout = the values of all ranks, reduced.   inout: the same shape everywhere
  virtual void all_reduce(Tensor inout, Reduce reduce = Reduce::sum, SumOrder order = SumOrder::ranks) = 0;
  /// whole = part of rank 0, part of rank 1, …   part: (n), the same n everywhere; whole: (size * n).
  /// part may lie at its place inside whole.
  virtual void all_gather(Tensor part, Tensor whole) = 0;
  /// The same with counts[r] elements from rank r.   part: counts[rank]; whole: their sum
  virtual void all_gather_varied(Tensor part, Tensor whole, std::span<const int64_t> counts) = 0;
  /// part = this rank's n elements of the sum of whole over ranks.   whole: (size * n), is left as it was;
  /// part: (n), may lie at its place inside whole (then only that place changes).
  virtual void reduce_scatter(Tensor whole, Tensor part, SumOrder order = SumOrder::ranks) = 0;
  /// tensor = that of rank `root`.
  virtual void broadcast(Tensor tensor, int root) = 0;
  /// Rank r gets send_counts[r] elements of `send`, which lie in rank order, and this rank gets
  /// receive_counts[r] elements from rank r, put in rank order.
  virtual void all_to_all_varied(Tensor send, std::span<const int64_t> send_counts, Tensor receive,
                                 std::span<const int64_t> receive_counts) = 0;
  /// Returns after every rank has come here.
  virtual void barrier() = 0;

  /// Collectives that go on while the caller computes, whenever poll() or another call makes progress.
  virtual Transfer start_all_reduce(Tensor inout, Reduce reduce = Reduce::sum,
                                    SumOrder order = SumOrder::ranks) = 0;
  virtual Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order = SumOrder::ranks) = 0;
  virtual Transfer start_all_gather(Tensor part, Tensor whole) = 0;

  // --- Point to point ------------------------------------------------------------------------------------
  /// Enqueues and returns at once, whatever the size. The receive must be as long as the send.
  virtual Transfer isend(Tensor tensor, int peer, Lane lane) = 0;
  virtual Transfer irecv(Tensor tensor, int peer, Lane lane) = 0;

  /// Makes progress with everything under way, on this communicator and on those split from the same world.
  virtual void poll() = 0;

  // --- Groups and memory ---------------------------------------------------------------------------------
  /// A new communicator of the ranks that name the same color, ordered by (key, rank). A negative color takes
  /// part in the call and gets nullptr. Every rank of this communicator must call.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  /// Makes room for reductions of up to `bytes` of scratch (see reduce_scratch_bytes), so that none allocates
  /// later. For set-up.
  virtual void reserve(int64_t bytes) = 0;
  virtual int64_t scratch_bytes() const = 0;  // room there is
  virtual int64_t scratch_growths()
      const = 0;  // how often a reduction had to allocate because none was reserved
  virtual const Traffic& traffic() const = 0;
  /// Seconds that this rank has spent in calls and waits that had to wait for another rank, on all
  /// communicators of one world together. NaN where it is not the host that waits.
  virtual double waited_s() const = 0;

  // --- Being watched -------------------------------------------------------------------------------------
  /// Where this rank notes what it waits for, on all communicators of one world; null: nowhere. The ring
  /// outlives them, or is taken away again.
  virtual void set_op_ring(OpRing* ring) = 0;
  virtual OpRing* op_ring() const = 0;
  /// What reports call it: "tensor", "data", … A world is called so until it is told otherwise.
  virtual void set_name(std::string_view name) = 0;
  /// A number that is the same on all its ranks, and hardly that of another communicator.
  virtual uint32_t id() const = 0;

 protected:
  friend class Transfer;
  virtual bool finish_if_done(int64_t transfer) = 0;  // makes progress; the id is free again after true
  virtual void finish(int64_t transfer) = 0;
  virtual void abandon(int64_t transfer) noexcept = 0;
};

/// Scratch that a reduction over `ranks` ranks takes when each of them sums up at most `part_bytes`: for
/// reduce_scatter the bytes of a part; for all_reduce see all_reduce_scratch_bytes. Never above
/// max(8 MiB, 8 KiB * ranks).
int64_t reduce_scratch_bytes(int ranks, int64_t part_bytes);
int64_t all_reduce_scratch_bytes(int ranks, int64_t bytes);

}  // namespace ptrain
