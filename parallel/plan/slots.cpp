// Where a schedule's micros lie while they are alive, and what that leaves free to move; declared in
// schedule.h.
#include <algorithm>
#include <set>

#include "kernels/base/error.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

size_t at(int index) {
  return static_cast<size_t>(index);
}

/// Gives slots to one program's micros, chunk by chunk, the lowest free one first.
class Slots {
 public:
  Slots(const std::vector<Action>& program, int chunks, int micros)
      : chunks_(chunks),
        micros_(micros),
        last_use_(at(chunks) * at(micros), program.size()),
        slot_of_(last_use_.size(), -1),
        free_(at(chunks)),
        used_(at(chunks), 0) {
    for (size_t i = 0; i < program.size(); ++i) {
      if (is_backward(program[i].kind)) last_use_[key(program[i].chunk, program[i])] = i;
    }
  }

  int take(int chunk, const Action& action) {
    int& slot = slot_of_[key(chunk, action)];
    std::set<int>& idle = free_[at(chunk)];
    if (slot < 0) slot = idle.empty() ? used_[at(chunk)]++ : idle.extract(idle.begin()).value();
    return slot;
  }

  /// After the program's action of this index.
  void give_back(const Action& action, size_t index) {
    if (last_use_[key(action.chunk, action)] == index) free_[at(action.chunk)].insert(action.slot);
  }

 private:
  size_t key(int chunk, const Action& action) const {
    if (action.micro >= micros_ || chunk < 0 || chunk >= chunks_)
      fail(ExitCode::defect, "{} cannot be lowered here", to_string(action));
    return at(chunk) * at(micros_) + at(action.micro);
  }

  int chunks_, micros_;
  std::vector<size_t> last_use_;  // [chunk * micros + micro]: index of its last backward
  std::vector<int> slot_of_;
  std::vector<std::set<int>> free_;  // [chunk]: given back, to be used again
  std::vector<int> used_;            // [chunk]
};

bool uses(const Action& action, int chunk, int slot) {
  return (action.chunk == chunk && action.slot == slot) ||
         (is_hand(action.kind) && action.to_chunk == chunk && action.to_slot == slot);
}

}  // namespace

Schedule with_slots(Schedule schedule, const StageMap& map) {
  for (std::vector<Action>& program : schedule.programs) {
    Slots slots(program, map.chunks(), schedule.micros);
    for (size_t i = 0; i < program.size(); ++i) {
      Action& action = program[i];
      if (action.micro < 0) continue;
      action.slot = slots.take(action.chunk, action);
      if (is_hand(action.kind)) action.to_slot = slots.take(action.to_chunk, action);
      slots.give_back(action, i);
    }
  }
  return schedule;
}

Schedule with_early_receives(Schedule schedule) {
  for (std::vector<Action>& program : schedule.programs) {
    for (size_t i = 0; i < program.size(); ++i) {
      if (program[i].kind != ActionKind::receive_gradient) continue;
      bool has_passed = false;
      for (size_t place = i; place > 0; --place) {
        const Action& before = program[place - 1];
        const Action& receive = program[place];
        const bool is_same_lane = before.kind == receive.kind && before.peer == receive.peer;
        const bool is_same_slot = uses(before, receive.chunk, receive.slot);
        if (is_same_slot || is_same_lane || (is_compute(before.kind) && has_passed)) break;
        has_passed |= is_compute(before.kind);
        std::swap(program[place - 1], program[place]);
      }
    }
  }
  return schedule;
}

std::vector<std::vector<int>> slots_of(const Schedule& schedule, const StageMap& map) {
  std::vector<std::vector<int>> slots;
  for (const std::vector<Action>& program : schedule.programs) {
    std::vector<int> counts(at(map.chunks()), 0);
    for (const Action& action : program) {
      counts[at(action.chunk)] = std::max(counts[at(action.chunk)], action.slot + 1);
      if (is_hand(action.kind))
        counts[at(action.to_chunk)] = std::max(counts[at(action.to_chunk)], action.to_slot + 1);
    }
    slots.push_back(std::move(counts));
  }
  return slots;
}

Schedule forwards_of(const StageMap& map, int micros, int at_once) {
  check(micros >= 1 && at_once >= 1, "forwards of {} micro-batches, {} at once", micros, at_once);
  std::vector<Action> program;
  for (int group = 0; group < micros; group += at_once) {
    for (int chunk = 0; chunk < map.chunks(); ++chunk) {
      for (int micro = group; micro < std::min(micros, group + at_once); ++micro)
        program.push_back({.kind = ActionKind::forward, .chunk = chunk, .micro = micro});
    }
  }
  Schedule schedule{
      .name = "forwards", .micros = micros, .programs = std::vector(at(map.positions()), program)};
  schedule = with_transfers(std::move(schedule), map);
  for (std::vector<Action>& actions : schedule.programs) {
    for (Action& action : actions) {
      action.slot = action.micro % at_once;
      if (is_hand(action.kind)) action.to_slot = action.slot;
    }
  }
  return schedule;
}

}  // namespace ptrain
