// Judges a schedule without running it; declared in schedule.h.
#include <algorithm>
#include <map>
#include <tuple>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

/// Collects what one stage did, action by action, and says what is wrong with it.
class StageCheck {
 public:
  StageCheck(int micros, int buckets, bool is_last)
      : micros_(micros),
        buckets_(buckets),
        is_last_(is_last),
        forwards_(at(micros)),
        inputs_(at(micros)),
        weights_(at(micros)),
        reduced_(at(buckets)) {}

  std::string add(const Action& action);
  std::string missing() const;

 private:
  using Done = std::vector<bool>;  // [micro] or [bucket]

  std::string add_forward(const Action& action);
  std::string add_input(const Action& action);
  std::string add_weights(const Action& action);
  std::string add_reduce(const Action& action);
  /// Marks it as done once.
  static std::string once(Done& done, int index, const Action& action) {
    if (done[at(index)]) return fmt::format("{} comes twice", to_string(action));
    done[at(index)] = true;
    return "";
  }
  /// What adds to gradients does so in ascending order.
  static std::string in_order(int& last, const Action& action) {
    if (action.micro < last) {
      return fmt::format(
          "{} adds to the gradients after micro-batch {}: sums must run in ascending order, or the bits "
          "depend "
          "on the schedule",
          to_string(action), last);
    }
    last = action.micro;
    return "";
  }

  int micros_, buckets_;
  bool is_last_;
  Done forwards_, inputs_, weights_, reduced_;
  int parts_ = 0;  // segments of the last micro's backward
  int last_forward_ = -1, last_input_ = -1, last_weights_ = -1;
};

std::string StageCheck::add_forward(const Action& action) {
  if (std::string fault = once(forwards_, action.micro, action); !fault.empty()) return fault;
  // The head's gradient is made in the forward.
  return is_last_ ? in_order(last_forward_, action) : "";
}

std::string StageCheck::add_input(const Action& action) {
  if (std::string fault = once(inputs_, action.micro, action); !fault.empty()) return fault;
  return in_order(last_input_, action);
}

std::string StageCheck::add_weights(const Action& action) {
  const int micro = action.micro;
  if (std::string fault = in_order(last_weights_, action); !fault.empty()) return fault;
  if (action.bucket >= 0) {
    if (micro != micros_ - 1)
      return fmt::format("{} is cut, but only the last micro-batch may be", to_string(action));
    if (action.bucket != parts_ || action.bucket >= buckets_)
      return fmt::format("{} comes where bucket {} of {} is due", to_string(action), parts_, buckets_);
    if (++parts_ < buckets_) return "";
  }
  return once(weights_, micro, action);
}

std::string StageCheck::add_reduce(const Action& action) {
  if (action.bucket < 0 || action.bucket >= buckets_)
    return fmt::format("{} is none of the {} buckets", to_string(action), buckets_);
  if (parts_ <= action.bucket && !weights_[at(micros_ - 1)])
    return fmt::format("{} starts before the last micro-batch's gradients are added", to_string(action));
  return once(reduced_, action.bucket, action);
}

std::string StageCheck::add(const Action& action) {
  if (is_forward(action.kind)) return add_forward(action);
  if (action.kind == ActionKind::reduce) return add_reduce(action);
  if (!is_backward(action.kind)) return "";
  const int micro = action.micro;
  if (!forwards_[at(micro)]) return fmt::format("{} comes before F{}", to_string(action), micro);
  if (action.kind == ActionKind::backward_input) return add_input(action);
  if (action.kind == ActionKind::backward_weights) {
    if (!inputs_[at(micro)]) return fmt::format("{} comes before its input half", to_string(action));
    return add_weights(action);
  }
  const bool is_begun = action.bucket > 0 && !weights_[at(micro)];
  if (!is_begun) {
    if (std::string fault = add_input(action); !fault.empty()) return fault;
  }
  return add_weights(action);
}

std::string StageCheck::missing() const {
  for (int micro = 0; micro < micros_; ++micro) {
    if (!forwards_[at(micro)]) return fmt::format("F{} is missing", micro);
    if (!inputs_[at(micro)]) return fmt::format("the backward of micro-batch {} is missing", micro);
    if (!weights_[at(micro)]) {
      return fmt::format("the backward of micro-batch {} is missing or not whole", micro);
    }
  }
  const auto reduced = std::ranges::count(reduced_, true);
  if (reduced != buckets_) return fmt::format("{} of {} buckets are reduced", reduced, buckets_);
  return "";
}

/// A message by what its receiver calls it.
using MessageName = std::tuple<int, int>;  // chunk, micro
struct LaneCheck {
  std::vector<MessageName> sent, received;
};
using Lanes = std::map<std::tuple<int, int, TransferLane>, LaneCheck>;  // sender, receiver, lane

MessageName sent_name(const StageMap& map, int position, const Action& action) {
  const TransferLane lane = lane_of(action.kind);
  const int stage = map.stage_of(position, action.chunk) + (lane == TransferLane::activation ? 1 : -1);
  if (stage < 0 || stage >= map.stages() || map.position_of(stage) != action.peer) return {-1, action.micro};
  return {map.chunk_of(stage), action.micro};
}

std::string fault_of_lanes(const Lanes& lanes) {
  for (const auto& [key, lane] : lanes) {
    const auto& [sender, receiver, kind] = key;
    const std::string where = fmt::format("{} lane from position {} to {}", name_of(kind), sender, receiver);
    for (size_t i = 0; i < std::min(lane.sent.size(), lane.received.size()); ++i) {
      if (lane.sent[i] == lane.received[i]) continue;
      return fmt::format("{}: message {} is sent for micro-batch {}, but received as micro-batch {}", where,
                         i, std::get<1>(lane.sent[i]), std::get<1>(lane.received[i]));
    }
    if (lane.sent.size() != lane.received.size()) {
      return fmt::format("{}: {} messages are sent, {} are received", where, lane.sent.size(),
                         lane.received.size());
    }
  }
  return "";
}

/// Of one program: what was received or handed before it is used, and made before it is sent or handed.
class TransferCheck {
 public:
  TransferCheck(const StageMap& map, int position, int micros)
      : map_(map), position_(position), micros_(micros), known_(at(map.chunks()) * at(micros)) {}

  /// buckets: of the action's stage.
  std::string add(const Action& action, int buckets) {
    if (is_receive(action.kind)) return bring(action.chunk, action);
    if (is_compute(action.kind)) return compute(action, buckets);
    if (is_send(action.kind)) return make_sure_of(action);
    if (!is_hand(action.kind)) return "";
    if (std::string fault = make_sure_of(action); !fault.empty()) return fault;
    const int stage = map_.stage_of(position_, action.chunk);
    const bool is_activation = action.kind == ActionKind::hand_activation;
    const int neighbour = stage + (is_activation ? 1 : -1);
    const bool is_there = neighbour >= 0 && neighbour < map_.stages() &&
                          map_.position_of(neighbour) == position_ &&
                          map_.chunk_of(neighbour) == action.to_chunk;
    if (!is_there) {
      return fmt::format("{}: chunk {} is not the stage {} it on this position", to_string(action),
                         action.to_chunk, is_activation ? "behind" : "before");
    }
    return bring(action.to_chunk, action);
  }

 private:
  struct Known {
    bool activation = false, gradient = false;    // here
    bool output = false, input_gradient = false;  // made
  };
  Known& of(int chunk, int micro) { return known_[at(chunk) * at(micros_) + at(micro)]; }

  std::string bring(int chunk, const Action& action) {
    const bool is_activation =
        action.kind == ActionKind::receive_activation || action.kind == ActionKind::hand_activation;
    Known& known = of(chunk, action.micro);
    bool& here = is_activation ? known.activation : known.gradient;
    if (here) return fmt::format("{} comes twice", to_string(action));
    here = true;
    return "";
  }

  std::string compute(const Action& action, int buckets) {
    Known& known = of(action.chunk, action.micro);
    if (action.kind == ActionKind::backward_weights) return "";
    const bool forward = is_forward(action.kind);
    const int before = map_.stage_of(position_, action.chunk) + (forward ? -1 : 1);
    const bool has_neighbour = before >= 0 && before < map_.stages();
    if (has_neighbour && !(forward ? known.activation : known.gradient)) {
      const bool is_handed = map_.position_of(before) == position_;
      return fmt::format("{} {} its {}", to_string(action), is_handed ? "was not handed" : "has not received",
                         name_of(forward ? TransferLane::activation : TransferLane::gradient));
    }
    if (forward) known.output = true;
    if (!forward && (action.bucket < 0 || action.bucket + 1 == buckets)) known.input_gradient = true;
    return "";
  }

  std::string make_sure_of(const Action& action) {
    Known& known = of(action.chunk, action.micro);
    const bool is_activation =
        action.kind == ActionKind::send_activation || action.kind == ActionKind::hand_activation;
    if (is_activation ? known.output : known.input_gradient) return "";
    if (is_activation) return fmt::format("{} comes before F{}", to_string(action), action.micro);
    return fmt::format("{} comes before the backward of micro-batch {}", to_string(action), action.micro);
  }

  const StageMap& map_;
  int position_, micros_;
  std::vector<Known> known_;  // [chunk * micros + micro]
};

/// Of one program: a slot holds one micro at a time, its gradient until that is sent or handed on.
class SlotCheck {
 public:
  SlotCheck(const StageMap& map, int position, int micros, const std::vector<Action>& program)
      : micros_(micros),
        last_chunk_(map.position_of(map.stages() - 1) == position ? map.chunk_of(map.stages() - 1) : -1),
        last_use_(at(map.chunks()) * at(micros)),
        slot_of_(last_use_.size(), -1) {
    for (size_t i = 0; i < program.size(); ++i) {
      if (is_backward(program[i].kind)) last_use_[key(program[i].chunk, program[i].micro)] = i;
    }
    owners_.resize(at(map.chunks()));
  }

  std::string add(const Action& action, size_t index) {
    if (action.slot < 0 && (!is_hand(action.kind) || action.to_slot < 0)) return "";
    if (is_hand(action.kind) && (action.to_slot < 0 || action.slot < 0))
      return fmt::format("{} lacks a slot", to_string(action));
    const bool is_gone = action.kind == ActionKind::send_gradient || action.kind == ActionKind::hand_gradient;
    if (is_gone) {  // the micro may have left its slot, its gradient not
      const int holds = owner(action.chunk, action.slot).gradient;
      if (holds != action.micro) {
        return fmt::format("{} reads slot {}, where there is {}", to_string(action), action.slot,
                           holds < 0 ? "no gradient yet" : fmt::format("micro-batch {}'s", holds));
      }
    } else if (std::string fault = hold(action.chunk, action.slot, action); !fault.empty()) {
      return fault;
    }
    if (is_hand(action.kind)) {
      if (std::string fault = hold(action.to_chunk, action.to_slot, action); !fault.empty()) return fault;
    }
    const bool is_made = is_forward(action.kind) && action.chunk == last_chunk_;
    if (is_made || action.kind == ActionKind::receive_gradient || is_backward(action.kind))
      owner(action.chunk, action.slot).gradient = action.micro;
    if (action.kind == ActionKind::hand_gradient)
      owner(action.to_chunk, action.to_slot).gradient = action.micro;
    if (is_backward(action.kind) && last_use_[key(action.chunk, action.micro)] == index)
      owner(action.chunk, action.slot).micro = -1;
    return "";
  }

 private:
  struct Owner {
    int micro = -1;     // that holds the slot
    int gradient = -1;  // micro of the gradient that lies there
  };

  size_t key(int chunk, int micro) const { return at(chunk) * at(micros_) + at(micro); }
  Owner& owner(int chunk, int slot) {
    std::vector<Owner>& owners = owners_[at(chunk)];
    if (owners.size() <= at(slot)) owners.resize(at(slot) + 1);
    return owners[at(slot)];
  }

  std::string hold(int chunk, int slot, const Action& action) {
    int& holder = owner(chunk, slot).micro;
    if (holder >= 0 && holder != action.micro) {
      return fmt::format("{} uses slot {}, which micro-batch {} still holds", to_string(action), slot,
                         holder);
    }
    int& own = slot_of_[key(chunk, action.micro)];
    if (own >= 0 && own != slot) {
      return fmt::format("{} uses slot {}, but its micro-batch lies in slot {}", to_string(action), slot,
                         own);
    }
    holder = action.micro;
    own = slot;
    return "";
  }

  int micros_;
  int last_chunk_;  // that makes gradients in its forward; -1 = it lies elsewhere
  std::vector<size_t> last_use_;
  std::vector<int> slot_of_;                // [chunk * micros + micro]
  std::vector<std::vector<Owner>> owners_;  // [chunk][slot]
};

/// Empty when the action can be looked at: its chunks and micro exist.
std::string fault_of_shape(const Action& action, const StageMap& map, int micros) {
  const auto is_outside = [&](int chunk) { return chunk < 0 || chunk >= map.chunks(); };
  if (is_outside(action.chunk) || (is_hand(action.kind) && is_outside(action.to_chunk))) {
    return fmt::format("{} is in chunk {} of {}", to_string(action),
                       is_outside(action.chunk) ? action.chunk : action.to_chunk, map.chunks());
  }
  if (action.kind != ActionKind::reduce && (action.micro < 0 || action.micro >= micros))
    return fmt::format("{} is none of the {} micro-batches", to_string(action), micros);
  return "";
}

}  // namespace

std::string fault_of(const Schedule& schedule, const StageMap& map, const std::vector<int>& buckets) {
  if (static_cast<int>(schedule.programs.size()) != map.positions()) {
    return fmt::format("{} programs for {} positions", schedule.programs.size(), map.positions());
  }
  const int micros = schedule.micros;
  const auto buckets_of = [&](int stage) { return buckets.empty() ? 0 : buckets[at(stage)]; };
  const auto who = [](int position) { return fmt::format("position {}: ", position); };
  std::vector<StageCheck> stages;
  for (int stage = 0; stage < map.stages(); ++stage)
    stages.emplace_back(micros, buckets_of(stage), map.is_last(stage));
  // 1. Shape of every action, and what each stage computes.
  Lanes lanes;
  bool has_hands = false;
  for (int position = 0; position < map.positions(); ++position) {
    for (const Action& action : schedule.programs[at(position)]) {
      std::string fault = fault_of_shape(action, map, micros);
      if (fault.empty()) fault = stages[at(map.stage_of(position, action.chunk))].add(action);
      if (!fault.empty()) return who(position) + fault;
      has_hands |= is_hand(action.kind);
      if (is_send(action.kind)) {
        lanes[{position, action.peer, lane_of(action.kind)}].sent.push_back(sent_name(map, position, action));
      } else if (is_receive(action.kind)) {
        lanes[{action.peer, position, lane_of(action.kind)}].received.push_back({action.chunk, action.micro});
      }
    }
  }
  // 2. What is missing.
  for (int stage = 0; stage < map.stages(); ++stage) {
    const std::string fault = stages[at(stage)].missing();
    if (!fault.empty()) return fmt::format("stage {}: {}", stage, fault);
  }
  // 3. Transfers and hands, where there are any, and slots, where they are given.
  const bool is_lowered = has_hands || !lanes.empty();
  for (int position = 0; position < map.positions(); ++position) {
    const std::vector<Action>& program = schedule.programs[at(position)];
    TransferCheck transfers(map, position, micros);
    SlotCheck slots(map, position, micros, program);
    for (size_t i = 0; i < program.size(); ++i) {
      const Action& action = program[i];
      if (action.micro < 0) continue;
      std::string fault;
      if (is_lowered) fault = transfers.add(action, buckets_of(map.stage_of(position, action.chunk)));
      if (fault.empty()) fault = slots.add(action, i);
      if (!fault.empty()) return who(position) + fault;
    }
  }
  return fault_of_lanes(lanes);
}

void validate(const Schedule& schedule, const StageMap& map, const std::vector<int>& buckets) {
  const std::string fault = fault_of(schedule, map, buckets);
  check(fault.empty(), "schedule {} of {} micro-batches is wrong: {}", schedule.name, schedule.micros, fault);
}

}  // namespace ptrain
