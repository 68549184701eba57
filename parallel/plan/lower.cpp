// The passes that lower a schedule; declared in schedule.h. Each takes a schedule and returns one with more
// actions, none of them moves a compute action.
#include <algorithm>
#include <map>
#include <tuple>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/schedule.h"

namespace ptrain {
namespace {

enum class Way { nowhere, transfer, hand };

/// What a compute action hands on or needs: what it is, the other position, and the chunk over there.
struct Edge {
  Way way = Way::nowhere;
  TransferLane lane = TransferLane::activation;
  int peer = 0;
  int peer_chunk = 0;
};

Edge edge_to(const StageMap& map, int position, int other_stage, TransferLane lane) {
  if (other_stage < 0 || other_stage >= map.stages()) return {};
  const int peer = map.position_of(other_stage);
  return {.way = peer == position ? Way::hand : Way::transfer,
          .lane = lane,
          .peer = peer,
          .peer_chunk = map.chunk_of(other_stage)};
}

/// Where the result of a compute action goes.
Edge output_of(const StageMap& map, int position, const Action& action) {
  const int stage = map.stage_of(position, action.chunk);
  if (is_forward(action.kind)) return edge_to(map, position, stage + 1, TransferLane::activation);
  if (action.kind == ActionKind::backward_weights) return {};
  return edge_to(map, position, stage - 1, TransferLane::gradient);
}

/// Where what a compute action needs comes from.
Edge input_of(const StageMap& map, int position, const Action& action) {
  const int stage = map.stage_of(position, action.chunk);
  if (is_forward(action.kind)) return edge_to(map, position, stage - 1, TransferLane::activation);
  if (action.kind == ActionKind::backward_weights) return {};
  return edge_to(map, position, stage + 1, TransferLane::gradient);
}

struct SentMessage {
  int chunk = 0;  // of the receiver
  int micro = 0;
};

/// One lane's messages in the order in which they are sent, and where in it each of them is.
struct LaneOrder {
  std::vector<SentMessage> messages;
  std::vector<size_t> place_of;  // [chunk * micros + micro]
  size_t received = 0;           // messages that the receiver's program has received so far
};
using LaneOrders = std::map<std::tuple<int, int, TransferLane>, LaneOrder>;  // sender, receiver, lane
constexpr size_t nowhere = ~size_t{0};

LaneOrders orders_of_sends(const Schedule& schedule, const StageMap& map) {
  LaneOrders orders;
  for (int position = 0; position < map.positions(); ++position) {
    for (const Action& action : schedule.programs[at(position)]) {
      const Edge out = output_of(map, position, action);
      if (out.way != Way::transfer) continue;
      LaneOrder& order = orders[{position, out.peer, out.lane}];
      order.place_of.resize(at(map.chunks() * schedule.micros), nowhere);
      order.place_of[at(out.peer_chunk * schedule.micros + action.micro)] = order.messages.size();
      order.messages.push_back({out.peer_chunk, action.micro});
    }
  }
  return orders;
}

/// Not check(): the text would be made for every action.
[[noreturn]] void refuse(const Action& action) {
  fail(ExitCode::defect, "{} cannot be lowered here", to_string(action));
}

Action hand(ActionKind kind, int chunk, int micro, int to_chunk) {
  return {.kind = kind, .chunk = chunk, .micro = micro, .to_chunk = to_chunk};
}

Action transfer(ActionKind kind, int chunk, int micro, int peer) {
  return {.kind = kind, .chunk = chunk, .micro = micro, .peer = peer};
}

/// The last action that adds to the gradients of `chunk`, as an index into the program.
size_t last_backward_of(const std::vector<Action>& program, int chunk) {
  for (size_t i = program.size(); i-- > 0;) {
    const Action& action = program[i];
    if (action.chunk == chunk &&
        (action.kind == ActionKind::backward || action.kind == ActionKind::backward_weights)) {
      return i;
    }
  }
  fail(ExitCode::defect, "chunk {} has no backward", chunk);
}

}  // namespace

Schedule with_transfers(Schedule schedule, const StageMap& map) {
  LaneOrders orders = orders_of_sends(schedule, map);
  for (int position = 0; position < map.positions(); ++position) {
    std::vector<Action> lowered;
    lowered.reserve(3 * schedule.programs[at(position)].size());
    for (const Action& action : schedule.programs[at(position)]) {
      if (!is_compute(action.kind) || action.bucket >= 0) refuse(action);
      // 1. Receive what it needs, and before it what the lane brings earlier.
      const Edge in = input_of(map, position, action);
      if (in.way == Way::hand && in.lane == TransferLane::activation) {
        lowered.push_back(hand(ActionKind::hand_activation, in.peer_chunk, action.micro, action.chunk));
      } else if (in.way == Way::transfer) {
        LaneOrder& order = orders[{in.peer, position, in.lane}];
        const size_t name = at(action.chunk * schedule.micros + action.micro);
        const size_t wanted = name < order.place_of.size() ? order.place_of[name] : nowhere;
        if (wanted == nowhere) refuse(action);
        const ActionKind kind = in.lane == TransferLane::activation ? ActionKind::receive_activation
                                                                    : ActionKind::receive_gradient;
        for (; order.received <= wanted; ++order.received) {
          const SentMessage& message = order.messages[order.received];
          lowered.push_back(transfer(kind, message.chunk, message.micro, in.peer));
        }
      }
      // 2. Compute, then send at once what it made.
      lowered.push_back(action);
      const Edge out = output_of(map, position, action);
      if (out.way == Way::hand && out.lane == TransferLane::gradient) {
        lowered.push_back(hand(ActionKind::hand_gradient, action.chunk, action.micro, out.peer_chunk));
      } else if (out.way == Way::transfer) {
        const ActionKind kind =
            out.lane == TransferLane::activation ? ActionKind::send_activation : ActionKind::send_gradient;
        lowered.push_back(transfer(kind, action.chunk, action.micro, out.peer));
      }
    }
    schedule.programs[at(position)] = std::move(lowered);
  }
  return schedule;
}

Schedule with_reductions(Schedule schedule, const StageMap& map, const std::vector<int>& buckets) {
  check(static_cast<int>(buckets.size()) == map.stages(), "buckets of {} stages given, there are {}",
        buckets.size(), map.stages());
  for (int stage = 0; stage < map.stages(); ++stage) {
    const int count = buckets[at(stage)];
    if (count == 0) continue;
    const int chunk = map.chunk_of(stage);
    std::vector<Action>& program = schedule.programs[at(map.position_of(stage))];
    const size_t last = last_backward_of(program, chunk);
    std::vector<Action> segments;
    for (int bucket = 0; bucket < count; ++bucket) {
      Action part = program[last];
      part.bucket = bucket;
      segments.push_back(part);
      // The stage before waits for the gradient, nobody for the reduction: the send goes first.
      const bool has_send = bucket + 1 == count && last + 1 < program.size() &&
                            (program[last + 1].kind == ActionKind::send_gradient ||
                             program[last + 1].kind == ActionKind::hand_gradient) &&
                            program[last + 1].chunk == chunk &&
                            program[last + 1].micro == program[last].micro;
      if (has_send) segments.push_back(program[last + 1]);
      segments.push_back({.kind = ActionKind::reduce, .chunk = chunk, .bucket = bucket});
      if (has_send) program.erase(program.begin() + static_cast<ptrdiff_t>(last) + 1);
    }
    const auto place = program.erase(program.begin() + static_cast<ptrdiff_t>(last));
    program.insert(place, segments.begin(), segments.end());
  }
  return schedule;
}

}  // namespace ptrain
