// Where a schedule's micros lie while they are alive, and what that leaves free to move; declared in
// schedule.h.
#include <algorithm>
#include <set>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

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

Schedule forwards_of(const Schedule& schedule, const StageMap& map) {
  Schedule forwards{.name = "forwards", .micros = schedule.micros, .programs = {}};
  for (const std::vector<Action>& program : schedule.programs) {
    std::vector<Action>& alone = forwards.programs.emplace_back();
    for (const Action& action : program) {
      if (is_forward(action.kind))
        alone.push_back({.kind = action.kind, .chunk = action.chunk, .micro = action.micro});
    }
  }
  forwards = with_transfers(std::move(forwards), map);
  const std::vector<std::vector<int>> slots = slots_of(schedule, map);
  for (size_t position = 0; position < slots.size(); ++position) {
    for (Action& action : forwards.programs[position]) {
      action.slot = action.micro % slots[position][at(action.chunk)];
      if (is_hand(action.kind)) action.to_slot = action.micro % slots[position][at(action.to_chunk)];
    }
  }
  return forwards;
}

}  // namespace ptrain
