// Judges a schedule without running it; declared in schedule.h.
#include <map>
#include <set>
#include <tuple>

#include "kernels/base/error.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

size_t at(int index) {
  return static_cast<size_t>(index);
}

/// Collects what one stage did, action by action, and says what is wrong with it.
struct StageCheck {
  std::set<int> forwards, inputs, weights;
  std::vector<int> parts;  // of the last micro's backward: buckets in order of their segments
  std::set<int> reduced;
  int last_weights = -1;  // highest micro whose gradients were added

  std::string add(const Action& action, int micros, int buckets);
  std::string add_backward(const Action& action, int micros, int buckets);
  std::string missing(int micros, int buckets) const;
};

std::string StageCheck::add_backward(const Action& action, int micros, int buckets) {
  const int micro = action.micro;
  if (!forwards.contains(micro)) return fmt::format("{} comes before F{}", to_string(action), micro);
  if (action.kind == ActionKind::backward_input) {
    return inputs.insert(micro).second ? "" : fmt::format("{} comes twice", to_string(action));
  }
  if (action.kind == ActionKind::backward_weights && !inputs.contains(micro)) {
    return fmt::format("{} comes before its input half", to_string(action));
  }
  if (micro < last_weights) {
    return fmt::format(
        "{} adds to the gradients after micro-batch {}: sums must run in ascending order, or the bits depend "
        "on the schedule",
        to_string(action), last_weights);
  }
  last_weights = micro;
  if (action.bucket >= 0) {
    if (micro != micros - 1)
      return fmt::format("{} is cut, but only the last micro-batch may be", to_string(action));
    if (action.bucket != static_cast<int>(parts.size()) || action.bucket >= buckets) {
      return fmt::format("{} comes where bucket {} of {} is due", to_string(action), parts.size(), buckets);
    }
    parts.push_back(action.bucket);
    if (action.bucket + 1 < buckets) return "";
  }
  return weights.insert(micro).second ? "" : fmt::format("{} comes twice", to_string(action));
}

std::string StageCheck::add(const Action& action, int micros, int buckets) {
  if (is_compute(action.kind) && (action.micro < 0 || action.micro >= micros)) {
    return fmt::format("{} is none of the {} micro-batches", to_string(action), micros);
  }
  if (is_forward(action.kind)) {
    return forwards.insert(action.micro).second ? "" : fmt::format("{} comes twice", to_string(action));
  }
  if (is_backward(action.kind)) return add_backward(action, micros, buckets);
  if (action.kind == ActionKind::reduce) {
    if (action.bucket < 0 || action.bucket >= buckets) {
      return fmt::format("{} is none of the {} buckets", to_string(action), buckets);
    }
    if (static_cast<int>(parts.size()) <= action.bucket && !weights.contains(micros - 1)) {
      return fmt::format("{} starts before the last micro-batch's gradients are added", to_string(action));
    }
    if (!reduced.insert(action.bucket).second) return fmt::format("{} comes twice", to_string(action));
  }
  return "";
}

std::string StageCheck::missing(int micros, int buckets) const {
  for (int micro = 0; micro < micros; ++micro) {
    if (!forwards.contains(micro)) return fmt::format("F{} is missing", micro);
    if (!weights.contains(micro)) return fmt::format("the backward of micro-batch {} is missing", micro);
  }
  if (static_cast<int>(reduced.size()) != buckets) {
    return fmt::format("{} of {} buckets are reduced", reduced.size(), buckets);
  }
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
  if (lane == TransferLane::tied) return {0, 0};
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

/// Receives before use and sends after making, within one program.
std::string fault_of_transfers(const StageMap& map, int position, const std::vector<Action>& program) {
  std::set<std::tuple<int, int, TransferLane>> here;    // (chunk, micro, lane) received
  std::set<std::tuple<int, int, ActionKind>> computed;  // (chunk, micro, kind)
  for (const Action& action : program) {
    const int stage = map.stage_of(position, action.chunk);
    if (is_receive(action.kind)) {
      here.insert({action.chunk, action.micro, lane_of(action.kind)});
    } else if (is_compute(action.kind)) {
      computed.insert({action.chunk, action.micro, action.kind});
      if (action.kind == ActionKind::backward_weights) continue;
      const bool forward = is_forward(action.kind);
      const int before = stage + (forward ? -1 : 1);
      const bool is_outside = before >= 0 && before < map.stages() && map.position_of(before) != position;
      const TransferLane lane = forward ? TransferLane::activation : TransferLane::gradient;
      if (is_outside && !here.contains({action.chunk, action.micro, lane})) {
        return fmt::format("{} has not received its {}", to_string(action), name_of(lane));
      }
    } else if (action.kind == ActionKind::send_activation) {
      if (!computed.contains({action.chunk, action.micro, ActionKind::forward})) {
        return fmt::format("{} comes before F{}", to_string(action), action.micro);
      }
    } else if (action.kind == ActionKind::send_gradient) {
      if (!computed.contains({action.chunk, action.micro, ActionKind::backward}) &&
          !computed.contains({action.chunk, action.micro, ActionKind::backward_input})) {
        return fmt::format("{} comes before the backward of micro-batch {}", to_string(action), action.micro);
      }
    } else if (action.kind == ActionKind::add_tied &&
               !here.contains({action.chunk, -1, TransferLane::tied})) {
      return "add tied gradient comes before its receive";
    }
  }
  return "";
}

std::string fault_of_slots(const std::vector<Action>& program) {
  std::map<std::pair<int, int>, size_t> last_use;  // (chunk, micro)
  for (size_t i = 0; i < program.size(); ++i) {
    if (is_backward(program[i].kind)) last_use[{program[i].chunk, program[i].micro}] = i;
  }
  std::map<std::pair<int, int>, int> owner;  // (chunk, slot) -> micro
  for (size_t i = 0; i < program.size(); ++i) {
    const Action& action = program[i];
    if (action.slot < 0 || action.micro < 0) continue;
    if (action.kind == ActionKind::send_gradient) continue;  // follows the backward; the runner guards it
    const auto place = std::pair(action.chunk, action.slot);
    const auto [found, is_new] = owner.insert({place, action.micro});
    if (found->second != action.micro) {
      return fmt::format("{} uses slot {}, which micro-batch {} still holds", to_string(action), action.slot,
                         found->second);
    }
    if (is_backward(action.kind) && last_use[{action.chunk, action.micro}] == i) owner.erase(place);
  }
  return "";
}

}  // namespace

std::string fault_of(const Schedule& schedule, const StageMap& map, const std::vector<int>& buckets) {
  if (static_cast<int>(schedule.programs.size()) != map.positions()) {
    return fmt::format("{} programs for {} positions", schedule.programs.size(), map.positions());
  }
  // 1. Shape of every action, and what each stage computes.
  std::vector<StageCheck> stages(at(map.stages()));
  const auto buckets_of = [&](int stage) { return buckets.empty() ? 0 : buckets[at(stage)]; };
  Lanes lanes;
  for (int position = 0; position < map.positions(); ++position) {
    for (const Action& action : schedule.programs[at(position)]) {
      const auto who = [&] { return fmt::format("position {}: ", position); };
      if (action.chunk < 0 || action.chunk >= map.chunks()) {
        return who() + fmt::format("{} is in chunk {} of {}", to_string(action), action.chunk, map.chunks());
      }
      const int stage = map.stage_of(position, action.chunk);
      const std::string fault = stages[at(stage)].add(action, schedule.micros, buckets_of(stage));
      if (!fault.empty()) return who() + fault;
      if (is_send(action.kind)) {
        lanes[{position, action.peer, lane_of(action.kind)}].sent.push_back(sent_name(map, position, action));
      } else if (is_receive(action.kind)) {
        const bool is_tied = action.kind == ActionKind::receive_tied;
        lanes[{action.peer, position, lane_of(action.kind)}].received.push_back(
            is_tied ? MessageName{0, 0} : MessageName{action.chunk, action.micro});
      }
    }
  }
  // 2. What is missing.
  for (int stage = 0; stage < map.stages(); ++stage) {
    const std::string fault = stages[at(stage)].missing(schedule.micros, buckets_of(stage));
    if (!fault.empty()) return fmt::format("stage {}: {}", stage, fault);
  }
  // 3. Transfers, where there are any, and slots, where they are given.
  if (!lanes.empty()) {
    for (int position = 0; position < map.positions(); ++position) {
      const std::string fault = fault_of_transfers(map, position, schedule.programs[at(position)]);
      if (!fault.empty()) return fmt::format("position {}: {}", position, fault);
    }
    if (std::string fault = fault_of_lanes(lanes); !fault.empty()) return fault;
  }
  for (int position = 0; position < map.positions(); ++position) {
    const std::string fault = fault_of_slots(schedule.programs[at(position)]);
    if (!fault.empty()) return fmt::format("position {}: {}", position, fault);
  }
  return "";
}

void validate(const Schedule& schedule, const StageMap& map, const std::vector<int>& buckets) {
  const std::string fault = fault_of(schedule, map, buckets);
  check(fault.empty(), "schedule {} of {} micro-batches is wrong: {}", schedule.name, schedule.micros, fault);
}

}  // namespace ptrain
