// What a rank does and has just done, for who asks from another thread while the rank may be stuck: its open
// operations, the last ones that ended, and how many collectives it has entered on every communicator. Always
// on and without locks. Not for times of a step (tracer) nor for judging (parallel/run/hang_report).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

namespace ptrain {

/// Whom an operation waits for: nobody, since the rank itself is busy; the sender or the receiver of a
/// message; the other ranks of a collective; what was enqueued on the rank's device.
enum class OpWait : uint8_t { none, receive, send, collective, device };

/// Where in the model: a layer from 0 on, or one of these.
inline constexpr int no_layer = -1, embedding_layer = -2, head_layer = -3;

/// An operation. Numbers that mean nothing here are -1.
struct Op {
  const char* name = "";  // of static storage
  OpWait wait = OpWait::none;
  int16_t group = -1;  // of a collective: as add_group() numbered it
  int32_t layer = no_layer;
  int32_t chunk = -1, micro = -1, bucket = -1;
  int32_t peer = -1;      // a rank of the world
  int64_t sequence = -1;  // which of the group's collectives, from 0
};

/// A few words that one thread writes and another may read at any time. A read while it is written gives old
/// or new words.
template <class T>
class SharedWords {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 8 == 0);
  static constexpr size_t count = sizeof(T) / 8;

 public:
  // The order of the stores says what the version of the ring relies on: who sees a word sees the version
  // before it. On x86 these are plain moves.
  void store(const T& value) {
    std::array<uint64_t, count> words;
    std::memcpy(words.data(), &value, sizeof value);
    for (size_t i = 0; i < count; ++i) words_[i].store(words[i], std::memory_order_release);
  }
  T load() const {
    std::array<uint64_t, count> words;
    for (size_t i = 0; i < count; ++i) words[i] = words_[i].load(std::memory_order_acquire);
    T value;
    std::memcpy(static_cast<void*>(&value), words.data(), sizeof value);
    return value;
  }

 private:
  std::array<std::atomic<uint64_t>, count> words_{};
};

// --- What is read ------------------------------------------------------------------------------------------
// Plain bytes, so that ranks of one program can send them to each other as they are.

struct OpLine {
  char name[32];
  OpWait wait;
  int32_t group_id_is_known;  // 0: group_id means nothing
  uint32_t group_id;
  int32_t layer, chunk, micro, bucket, peer;
  int64_t sequence;
  double age_s;   // since it began
  double took_s;  // -1: still open
};

struct GroupLine {
  uint32_t id;      // the same on all its ranks
  int32_t size;     // ranks
  char name[24];    // "world", "tensor", …
  int64_t entered;  // collectives
};

struct OpSnapshot {
  char phase[40] = {};
  bool is_long = false;
  int64_t step = 0;
  std::vector<OpLine> open;    // the outermost first
  std::vector<OpLine> recent;  // ended, the oldest first
  std::vector<GroupLine> groups;
};

// --- The ring ----------------------------------------------------------------------------------------------

/// Written by the main thread alone; progress() and snapshot() are for any other thread too. Holds no
/// pointers: from memory that processes share, snapshot() can be taken by another one (shared_ring.h).
class OpRing {
 public:
  static constexpr int size = 64, max_depth = 8, max_groups = 32;

  OpRing();

  /// An operation begins inside those that are open; end() ends the innermost.
  void begin(const Op& op);
  void end();
  /// Something that is over at once, or is not waited for here: a message that sets out.
  void mark(const Op& op);
  /// The innermost open operation has come to this layer.
  void at_layer(int layer);
  /// Something moved although nothing began or ended: parts of a message came.
  void moved() { moves_.store(moves_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }

  /// What the run is busy with. is_long: in such a phase signs of life (kernels/base/progress.h) count as
  /// progress.
  void set_phase(std::string_view phase, bool is_long);
  void set_step(int64_t step) { step_.store(step, std::memory_order_relaxed); }
  int64_t step() const { return step_.load(std::memory_order_relaxed); }

  /// A communicator, or -1 where there is no room for one more. id: the same on all its ranks. entered: its
  /// collectives until now.
  int add_group(uint32_t id, std::string_view name, int ranks, int64_t entered = 0);
  void name_group(int group, std::string_view name);
  void remove_group(int group);
  /// One more of its collectives is entered.
  void enter(int group) {
    if (group < 0) return;
    std::atomic<int64_t>& entered = entered_[static_cast<size_t>(group)];
    entered.store(entered.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  /// Changes with everything that is noted; signs of life change it in long phases.
  uint64_t progress() const;
  OpSnapshot snapshot() const;

 private:
  struct Record {
    char name[24];
    OpWait wait;
    int16_t group;
    int32_t layer, chunk, micro, bucket, peer;
    int64_t sequence, begin_ns, end_ns;
  };
  struct Phase {
    char name[40];
  };
  struct Group {
    char name[24];
    uint32_t id;
    int32_t ranks;  // 0: no group
  };
  static int64_t now_ns();
  static Record record_of(const Op& op, int64_t end_ns);

  // Odd while the main thread writes. Who reads the same even number before and after has read one state.
  class Writing;
  std::atomic<uint64_t> version_{0};
  std::atomic<uint64_t> moves_{0};
  std::atomic<int64_t> step_{0};
  SharedWords<Phase> phase_;
  std::atomic<bool> is_long_{true};
  std::atomic<int32_t> depth_{0};
  std::atomic<uint64_t> ended_{0};
  std::array<std::atomic<int32_t>, max_depth> layers_;  // of the open ones
  std::array<SharedWords<Record>, max_depth> open_;
  std::array<SharedWords<Record>, size> ring_;
  std::array<SharedWords<Group>, max_groups> groups_;
  std::array<std::atomic<int64_t>, max_groups> entered_{};
  std::array<Record, max_depth> own_{};  // the main thread's copy of open_
};

/// An operation from here to the end of the block. ring: null for none.
class OpNote {
 public:
  OpNote(OpRing* ring, const Op& op) : ring_(ring) {
    if (ring_ != nullptr) ring_->begin(op);
  }
  ~OpNote() {
    if (ring_ != nullptr) ring_->end();
  }
  OpNote(const OpNote&) = delete;
  OpNote& operator=(const OpNote&) = delete;

 private:
  OpRing* ring_;
};

}  // namespace ptrain
