// The interleaved 1f1b schedule; declared in schedule.h.
#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

/// The chunk passes and their order on every position: micros in groups of p, a group through all chunks.
struct Turns {
  int positions = 1, chunks = 1;

  Action forward(int turn) const {
    return {.kind = ActionKind::forward, .chunk = chunk_of(turn), .micro = micro_of(turn)};
  }
  /// Backwards leave the chunks in the opposite order.
  Action backward(int turn) const {
    return {.kind = ActionKind::backward, .chunk = chunks - 1 - chunk_of(turn), .micro = micro_of(turn)};
  }

 private:
  int chunk_of(int turn) const { return turn / positions % chunks; }
  int micro_of(int turn) const { return turn / (positions * chunks) * positions + turn % positions; }
};

}  // namespace

Schedule interleaved(const StageMap& map, int micros) {
  check(map.order() == StageOrder::round, ExitCode::usage,
        "an interleaved schedule has its stages in round order");
  const int p = map.positions(), v = map.chunks();
  Schedule schedule{.name = "interleaved", .micros = micros, .programs = {}};
  if (v == 1) {
    schedule.programs = one_f_one_b(map, micros).programs;
    return schedule;
  }
  check(p >= 1 && v >= 1 && micros >= 1, "a schedule of {} positions, {} chunks and {} micro-batches", p, v,
        micros);
  // The last group is played as if it were full, without what is not there. A schedule in which nobody waits
  // for ever stays one when whole micros are taken out: micros do not wait for each other's messages.
  const Turns turns{.positions = p, .chunks = v};
  const int total = (micros + p - 1) / p * p * v;
  for (int position = 0; position < p; ++position) {
    std::vector<Action> program;
    program.reserve(static_cast<size_t>(2 * micros * v));
    const auto add = [&](const Action& action) {
      if (action.micro < micros) program.push_back(action);
    };
    const int warm_up = std::min(2 * (p - 1 - position) + (v - 1) * p, total);
    int forward = 0;
    while (forward < warm_up) add(turns.forward(forward++));
    for (int backward = 0; backward < total; ++backward) {
      if (forward < total) add(turns.forward(forward++));
      add(turns.backward(backward));
    }
    schedule.programs.push_back(std::move(program));
  }
  return schedule;
}

}  // namespace ptrain
