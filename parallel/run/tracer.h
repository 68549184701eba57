// What a rank did when: spans of time, written down while it trains. Takes nothing of the heap after it was
// made and knows nothing of files: src/train/trace writes what lies here.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/op_ring.h"
#include "parallel/plan/schedule.h"

namespace ptrain {

/// What a span is about. phase: a part of a step, or what lies between steps; the others are actions of the
/// program, or what else is computed or sent beside them. tensor: sums and gathers inside a layer;
/// collective: those between layers.
enum class SpanCategory : uint8_t { phase, compute, transfer, collective, tensor };
inline constexpr int num_span_categories = 5;
std::string_view name_of(SpanCategory category);
/// What an action is: transfer (sends and receives), collective (reduce), else compute: the rank is busy with
/// it.
SpanCategory category_of(ActionKind kind);

struct Span {
  std::string_view name;  // of static storage
  SpanCategory category = SpanCategory::phase;
  double begin_s = 0, end_s = 0;  // on the tracer's clock
  int64_t step = 0;
  int chunk = -1, micro = -1, bucket = -1, peer = -1;  // as of Action; -1: means nothing here
};

/// What the times of compute, transfers and collectives mean. happened: it ran from begin to end, as the host
/// saw it. enqueued: the host gave it to a device then; when it ran is not known.
enum class SpanTimes : uint8_t { happened, enqueued };

/// Spans of the step that is traced. Used by one thread. Functions that note spans do nothing between steps
/// that are traced; a null Tracer* stands for a run without a trace.
class Tracer {
 public:
  using Clock = std::function<double()>;  // seconds, going forward

  /// Has room for `room` spans; what comes after them is counted and dropped.
  Tracer(Clock now_s, SpanTimes times, size_t room);

  /// From here on spans are of `step`. Those of the step before are gone.
  void begin(int64_t step);
  void end() { is_on_ = false; }
  bool is_on() const { return is_on_; }

  /// Whether it can be told when a transfer was done: one may ask it while others are under way.
  bool sees_transfers() const { return is_on_ && times_ == SpanTimes::happened; }
  SpanTimes times() const { return times_; }
  double now_s() const { return now_s_(); }

  void note(const Action& action, double begin_s, double end_s);
  /// What no action of the pipeline stands for.
  void note(std::string_view name, SpanCategory category, double begin_s, double end_s, int bucket = -1);

  std::span<const Span> spans() const { return spans_; }
  int64_t dropped() const { return dropped_; }  // of this step
  size_t room() const { return room_; }

 private:
  void add(const Span& span);

  Clock now_s_;
  SpanTimes times_;
  size_t room_;
  std::vector<Span> spans_;
  int64_t dropped_ = 0;
  int64_t step_ = 0;
  bool is_on_ = false;
};

/// A started collective that is noted when it is done: from its start until it was seen to be done, or waited
/// for. It belongs to the step that is traced then, even where it was started before. Who waits for it is
/// noted in the ring of operations.
class WatchedTransfer {
 public:
  WatchedTransfer() = default;
  /// name: of static storage. tracer, ops: null for none.
  WatchedTransfer(Transfer transfer, Tracer* tracer, OpRing* ops, const char* name, int bucket,
                  SpanCategory category = SpanCategory::collective)
      : transfer_(std::move(transfer)),
        tracer_(tracer),
        ops_(ops),
        name_(name),
        category_(category),
        bucket_(bucket),
        begin_s_(tracer != nullptr ? tracer->now_s() : 0) {}

  void wait() {
    const OpNote note(std::exchange(ops_, nullptr), {.name = name_, .bucket = bucket_});
    transfer_.wait();
    close();
  }
  /// Notes it if it is done by now; asks only where that can be told.
  void look() {
    if (tracer_ != nullptr && tracer_->sees_transfers() && transfer_.is_done()) close();
  }

 private:
  void close();

  Transfer transfer_;
  Tracer* tracer_ = nullptr;  // null once it is noted, as the next
  OpRing* ops_ = nullptr;
  const char* name_ = "";
  SpanCategory category_ = SpanCategory::collective;
  int bucket_ = -1;
  double begin_s_ = 0;
};

/// A phase from here to the next one, or to the end of the block. tracer, ops: null for none. name: of static
/// storage, a whole literal.
class PhaseSpan {
 public:
  PhaseSpan(Tracer* tracer, const char* name, OpRing* ops = nullptr)
      : tracer_(tracer != nullptr && tracer->is_on() ? tracer : nullptr),
        ops_(ops),
        name_(name),
        begin_s_(tracer_ != nullptr ? tracer_->now_s() : 0) {
    if (ops_ != nullptr) ops_->begin({.name = name_});
  }
  ~PhaseSpan() { close(); }
  PhaseSpan(const PhaseSpan&) = delete;
  PhaseSpan& operator=(const PhaseSpan&) = delete;

  /// The phase ends and this one begins.
  void next(const char* name) {
    begin_s_ = close();
    name_ = name;
    if (ops_ != nullptr) ops_->begin({.name = name_});
  }

 private:
  double close() {
    if (ops_ != nullptr) ops_->end();
    if (tracer_ == nullptr) return 0;
    const double now_s = tracer_->now_s();
    tracer_->note(name_, SpanCategory::phase, begin_s_, now_s);
    return now_s;
  }

  Tracer* tracer_;
  OpRing* ops_;
  const char* name_;
  double begin_s_;
};

}  // namespace ptrain
