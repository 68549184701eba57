// The schedules whose backward comes in halves; declared in schedule.h.
#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

/// Writes a position's program: each call is the next micro of that kind in that chunk. Micros beyond the
/// last one count but are not written.
class Writer {
 public:
  Writer(int chunks, int micros) : micros_(micros), next_(static_cast<size_t>(chunks)) {}

  void forward(int chunk = 0) { add(ActionKind::forward, chunk, of(chunk).forward++); }
  void input(int chunk = 0) { add(ActionKind::backward_input, chunk, of(chunk).input++); }
  void weights(int chunk = 0) { add(ActionKind::backward_weights, chunk, of(chunk).weights++); }
  void halves(int chunk = 0) {
    input(chunk);
    weights(chunk);
  }
  int forwards(int chunk = 0) { return of(chunk).forward; }
  /// Micros whose input half is done and whose weights are owed.
  int owed(int chunk = 0) { return of(chunk).input - of(chunk).weights; }
  std::vector<Action> take() { return std::move(program_); }

 private:
  struct Next {
    int forward = 0, input = 0, weights = 0;
  };
  Next& of(int chunk) { return next_[static_cast<size_t>(chunk)]; }
  void add(ActionKind kind, int chunk, int micro) {
    if (micro < micros_) program_.push_back({.kind = kind, .chunk = chunk, .micro = micro});
  }

  int micros_;
  std::vector<Next> next_;
  std::vector<Action> program_;
};

}  // namespace

Schedule zero_bubble_h1(const StageMap& map, int micros) {
  check(
      map.chunks() == 1, ExitCode::usage,
      "schedule zero_bubble H1 has one stage a rank, but virtual_stages = {}; set parallel.virtual_stages to "
      "1, or to 2 for its V form",
      map.chunks());
  check(map.positions() >= 1 && micros >= 1, "a schedule of {} positions and {} micro-batches",
        map.positions(), micros);
  Schedule schedule{.name = "zero_bubble", .micros = micros, .programs = {}};
  for (int position = 0; position < map.positions(); ++position) {
    Writer writer(1, micros);
    const int warm_up = std::min(map.positions() - 1 - position, micros);
    for (int i = 0; i < warm_up; ++i) writer.forward();
    for (int i = 0; i < micros; ++i) {
      if (writer.forwards() < micros) writer.forward();
      writer.input();
      if (writer.owed() > position) writer.weights();
    }
    while (writer.owed() > 0) writer.weights();
    schedule.programs.push_back(writer.take());
  }
  return schedule;
}

Schedule zero_bubble_v(const StageMap& map, int micros) {
  check(
      map.chunks() == 2 && map.order() == StageOrder::there_and_back, ExitCode::usage,
      "schedule zero_bubble in its V form has two stages a rank that go there and back, but virtual_stages = "
      "{}; set parallel.virtual_stages to 2",
      map.chunks());
  const int p = map.positions();
  check(p >= 1 && micros >= 1, "a schedule of {} positions and {} micro-batches", p, micros);
  Schedule schedule{.name = "zero_bubble", .micros = micros, .programs = {}};
  // The shape needs 2 p - 1 micros. Of fewer, those that are not there are left out: see interleaved().
  const int shape = std::max(micros, 2 * p - 1);
  for (int position = 0; position < p; ++position) {
    Writer writer(2, micros);
    const int to_turn = p - position;  // this position and those behind it
    // 1. Warm-up: forwards there until the first micro is back from the turn, then there and back by turns,
    // then back alone, each with its backward: the stages behind are about to ask for it.
    for (int i = 0; i < 2 * to_turn - 1; ++i) writer.forward(0);
    for (int i = 0; i < position; ++i) {
      writer.forward(1);
      writer.forward(0);
    }
    for (int i = 0; i < to_turn; ++i) {
      writer.forward(1);
      writer.halves(1);
    }
    // 2. Steady: six pieces a micro.
    while (writer.forwards(1) < writer.forwards(0) || writer.forwards(0) < shape) {
      if (writer.forwards(0) < shape) writer.forward(0);
      writer.halves(0);
      writer.forward(1);
      writer.halves(1);
    }
    // 3. End: inputs first, since others wait for them; the weights owed fill the time after.
    for (int i = 0; i < position; ++i) {
      writer.input(0);
      writer.input(1);
    }
    for (int i = 0; i < to_turn; ++i) writer.halves(0);
    while (writer.owed(1) > 0) writer.weights(1);
    while (writer.owed(0) > 0) writer.weights(0);
    schedule.programs.push_back(writer.take());
  }
  return schedule;
}

}  // namespace ptrain
