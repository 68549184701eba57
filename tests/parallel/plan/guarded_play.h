// Plays lowered programs on paper under the hardest rule that the runner has: a send is done when its receive
// was called, no sooner (a message above the eager size), and actions wait for what Pipeline waits for.
#pragma once

#include <array>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/plan/schedule.h"

namespace ptrain {

class GuardedPlay {
 public:
  GuardedPlay(const Schedule& schedule, const StageMap& map) : programs_(schedule.programs), map_(map) {
    next_.assign(programs_.size(), 0);
  }

  /// Empty when every program ends and every message arrives; else where they stand.
  std::string run() {
    for (bool has_moved = true; has_moved;) {
      has_moved = false;
      for (size_t position = 0; position < programs_.size(); ++position) {
        while (next_[position] < programs_[position].size() && act(static_cast<int>(position)))
          has_moved = true;
      }
    }
    std::string stuck;
    for (size_t position = 0; position < programs_.size(); ++position) {
      if (next_[position] < programs_[position].size()) {
        stuck +=
            fmt::format("position {} at {}; ", position, to_string(programs_[position][next_[position]]));
      }
    }
    for (const auto& [key, wire] : wires_) {
      if (wire.sent != wire.received) stuck += "a message is left; ";
    }
    return stuck;
  }

 private:
  struct Wire {
    int sent = 0, received = 0;
  };
  struct Message {
    Wire* wire = nullptr;
    int index = -1;  // nothing when -1
  };
  struct Slot {
    std::array<Message, 2> sends, receives;  // by lane
  };

  static bool has_left(const Message& send) { return send.index < 0 || send.wire->received > send.index; }
  static bool has_come(const Message& receive) {
    return receive.index < 0 || receive.wire->sent > receive.index;
  }
  Slot& slot(int position, int chunk, int slot) { return slots_[{position, chunk, slot}]; }

  bool is_ready(int position, const Action& action) {
    constexpr size_t x = 0, d = 1;
    Slot& own = slot(position, action.chunk, action.slot);
    const bool is_last = map_.is_last(map_.stage_of(position, action.chunk));
    switch (action.kind) {
      case ActionKind::forward:
        return has_come(own.receives[x]) && has_left(own.sends[x]) && (!is_last || has_left(own.sends[d]));
      case ActionKind::backward:
        return has_come(own.receives[d]) && has_left(own.sends[d]);
      case ActionKind::backward_input:
        return has_come(own.receives[d]) && has_left(own.sends[d]) && has_left(own.sends[x]);
      case ActionKind::send_activation:
        return has_left(own.sends[x]);
      case ActionKind::send_gradient:
      case ActionKind::receive_gradient:
        return has_left(own.sends[d]);
      case ActionKind::hand_gradient:
        return has_left(slot(position, action.to_chunk, action.to_slot).sends[d]);
      default:
        return true;
    }
  }

  bool act(int position) {
    const Action& action = programs_[static_cast<size_t>(position)][next_[static_cast<size_t>(position)]];
    if (!is_ready(position, action)) return false;
    if (is_send(action.kind)) {
      Wire& wire = wires_[{position, action.peer, lane_of(action.kind)}];
      lane(slot(position, action.chunk, action.slot).sends, action) = {&wire, wire.sent++};
    } else if (is_receive(action.kind)) {
      Wire& wire = wires_[{action.peer, position, lane_of(action.kind)}];
      lane(slot(position, action.chunk, action.slot).receives, action) = {&wire, wire.received++};
    }
    ++next_[static_cast<size_t>(position)];
    return true;
  }

  static Message& lane(std::array<Message, 2>& messages, const Action& action) {
    return messages[static_cast<size_t>(lane_of(action.kind))];
  }

  const std::vector<std::vector<Action>>& programs_;
  StageMap map_;
  std::vector<size_t> next_;
  std::map<std::tuple<int, int, TransferLane>, Wire> wires_;
  std::map<std::tuple<int, int, int>, Slot> slots_;  // position, chunk, slot
};

}  // namespace ptrain
