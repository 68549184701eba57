#include "parallel/plan/simulate.h"

#include <algorithm>
#include <optional>
#include <set>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"

namespace ptrain {
namespace {

struct Message {
  int chunk = 0, micro = 0;  // as the receiver calls it
  double sent_s = 0, arrival_s = 0;
};

/// What one position sent another on a lane, and how many of it the other has received.
struct Wire {
  int receiver = 0;
  TransferLane lane = TransferLane::activation;
  std::vector<Message> messages;
  size_t received = 0;
};

constexpr size_t nowhere = ~size_t{0};

/// The forward (activation) or backward (gradient) of one micro on one stage.
struct Pass {
  double made_s = -1;        // when it was made; -1 = not yet
  size_t message = nowhere;  // its input: the message that a receive matched it with
  double handed_s = -1;      // its input: when it was handed over in memory
};

/// Why a position cannot go on.
struct Wait {
  int peer = -1;  // whom it waits for
  std::string reason;
};

class Simulation {
 public:
  Simulation(const Schedule& schedule, const StageMap& map, const Costs& costs, SendMode mode);
  Report run();

 private:
  /// Executes the position's next action; an explanation when it must wait.
  std::optional<Wait> step(int position);
  void check_action(int position, const Action& action) const;
  std::optional<Wait> compute(int position, const Action& action);
  std::optional<Wait> wait_for(int position, const Action& action, TransferLane lane, Message& message);
  std::optional<Wait> input_ready(int position, const Action& action, double& sent_s, double& ready_s);
  std::optional<Wait> meet(int position, const Action& action);
  void hand(int position, const Action& action);
  void receive(int position, const Action& action);
  Wire& wire_of(int sender, int receiver, TransferLane lane);
  Pass& pass_of(int stage, int micro, TransferLane lane) {
    return passes_[(at(stage) * at(micros_) + at(micro)) * 2 + static_cast<size_t>(lane)];
  }
  /// The reason of a wait, made only when somebody will read it: most waits end.
  template <class... Args>
  Wait wait(int peer, fmt::format_string<Args...> text, Args&&... args) const {
    return {.peer = peer, .reason = is_explaining_ ? fmt::format(text, std::forward<Args>(args)...) : ""};
  }
  void send(int position, const Action& action, double sent_s);
  double cost_of(TransferLane lane) const;
  double duration_of(int stage, const Action& action) const;
  const Action& current(int position) const { return programs_[at(position)][counter_[at(position)]]; }
  bool is_finished(int position) const { return counter_[at(position)] == programs_[at(position)].size(); }
  void advance(int position, Interval interval);
  std::string explain();
  void finish();

  const std::vector<std::vector<Action>>& programs_;
  const StageMap& map_;
  const Costs& costs_;
  const SendMode mode_;
  const int micros_;
  bool has_transfers_ = false, has_hands_ = false, is_explaining_ = false;
  std::vector<size_t> counter_;
  std::vector<double> now_s_, reduced_s_;
  std::vector<std::vector<int>> segments_;  // [stage]: bucket segments of the last backward, at least one
  std::vector<std::vector<Wire>> wires_;    // [sender]
  std::vector<Pass> passes_;                // [(stage * micros + micro) * 2 + lane]
  Report report_;
};

Simulation::Simulation(const Schedule& schedule, const StageMap& map, const Costs& costs, SendMode mode)
    : programs_(schedule.programs), map_(map), costs_(costs), mode_(mode), micros_(schedule.micros) {
  const size_t positions = at(map.positions());
  check(programs_.size() == positions, "{} programs for {} positions", programs_.size(), positions);
  check(costs.forward_s.size() == at(map.stages()) && costs.backward_s.size() == at(map.stages()),
        "costs of {} stages given, there are {}", costs.forward_s.size(), map.stages());
  counter_.assign(positions, 0);
  now_s_.assign(positions, 0);
  reduced_s_.assign(positions, 0);
  segments_.assign(at(map.stages()), {});
  report_.busy_s.assign(positions, 0);
  report_.exposed_transfer_s.assign(positions, 0);
  report_.intervals.resize(positions);
  wires_.resize(positions);
  passes_.resize(at(map.stages()) * at(micros_) * 2);
  bool has_slots = true;
  for (int position = 0; position < map.positions(); ++position) {
    report_.intervals[at(position)].reserve(programs_[at(position)].size());
    for (const Action& action : programs_[at(position)]) {
      check_action(position, action);
      has_slots &= !is_compute(action.kind) || action.slot >= 0;
      has_transfers_ |= is_send(action.kind) || is_receive(action.kind);
      has_hands_ |= is_hand(action.kind);
      if (is_compute(action.kind) && action.bucket >= 0) {
        segments_[at(map.stage_of(position, action.chunk))].push_back(action.bucket);
      }
    }
  }
  report_.peak_live = has_slots ? slots_of(schedule, map) : slots_of(with_slots(schedule, map), map);
}

void Simulation::check_action(int position, const Action& action) const {
  const auto is_inside = [&](int chunk) { return chunk >= 0 && chunk < map_.chunks(); };
  const bool has_peer = is_send(action.kind) || is_receive(action.kind);
  const bool is_known = (!has_peer || (action.peer >= 0 && action.peer < map_.positions())) &&
                        is_inside(action.chunk) && (!is_hand(action.kind) || is_inside(action.to_chunk)) &&
                        (action.kind == ActionKind::reduce || (action.micro >= 0 && action.micro < micros_));
  if (!is_known)
    fail(ExitCode::defect, "position {}: {} names what there is not", position, to_string(action));
}

Wire& Simulation::wire_of(int sender, int receiver, TransferLane lane) {
  std::vector<Wire>& wires = wires_[at(sender)];  // a handful
  for (Wire& wire : wires) {
    if (wire.receiver == receiver && wire.lane == lane) return wire;
  }
  return wires.emplace_back(Wire{.receiver = receiver, .lane = lane, .messages = {}});
}

double Simulation::cost_of(TransferLane lane) const {
  return lane == TransferLane::activation ? costs_.activation_s : costs_.gradient_s;
}

double Simulation::duration_of(int stage, const Action& action) const {
  if (is_forward(action.kind)) return costs_.forward_s[at(stage)];
  double duration = costs_.backward_s[at(stage)];
  const double input = costs_.input_share.empty() ? 0.5 : costs_.input_share[at(stage)];
  if (action.kind == ActionKind::backward_input) return duration * input;
  if (action.kind == ActionKind::backward_weights) duration *= 1 - input;
  if (action.bucket < 0) return duration;
  if (!costs_.bucket_share.empty()) return duration * costs_.bucket_share[at(stage)][at(action.bucket)];
  return duration / static_cast<double>(segments_[at(stage)].size());
}

void Simulation::advance(int position, Interval interval) {
  now_s_[at(position)] = interval.end_s;
  report_.intervals[at(position)].push_back(interval);
  ++counter_[at(position)];
}

/// The message that a receive of (chunk, micro) was matched with, once it is sent.
std::optional<Wait> Simulation::wait_for(int position, const Action& action, TransferLane lane,
                                         Message& message) {
  const int stage = map_.stage_of(position, action.chunk);
  const size_t index = pass_of(stage, action.micro, lane).message;
  if (index == nowhere) return wait(-1, "its {} is never received: the receive is missing", name_of(lane));
  const int peer = map_.position_of(stage + (is_forward(action.kind) ? -1 : 1));
  const std::vector<Message>& sent = wire_of(peer, position, lane).messages;
  if (sent.size() <= index) {
    return wait(peer, "the {} of micro-batch {} is not sent by position {}", name_of(lane), action.micro,
                peer);
  }
  message = sent[index];
  if (message.chunk != action.chunk || message.micro != action.micro) {
    return wait(-1,
                "message {} of the {} lane from position {} is micro-batch {}, received as micro-batch {}: "
                "sends and receives of a lane are in different order",
                index, name_of(lane), peer, message.micro, action.micro);
  }
  return std::nullopt;
}

/// When the input of a compute action was ready to travel and when it is here.
std::optional<Wait> Simulation::input_ready(int position, const Action& action, double& sent_s,
                                            double& ready_s) {
  sent_s = ready_s = 0;
  const int stage = map_.stage_of(position, action.chunk);
  const bool forward = is_forward(action.kind);
  const TransferLane lane = forward ? TransferLane::activation : TransferLane::gradient;
  const int before = stage + (forward ? -1 : 1);
  if (action.kind == ActionKind::backward_weights || action.bucket > 0) return std::nullopt;
  if (before < 0 || before >= map_.stages()) return std::nullopt;
  const int peer = map_.position_of(before);
  if (peer != position && has_transfers_) {
    Message message;
    if (auto wait = wait_for(position, action, lane, message)) return wait;
    sent_s = message.sent_s;
    ready_s = message.arrival_s;
    return std::nullopt;
  }
  const double made_s = pass_of(before, action.micro, lane).made_s;
  const double handed_s = pass_of(stage, action.micro, lane).handed_s;
  if (made_s < 0) {
    return wait(peer, "stage {} has not made the {} of micro-batch {}", before, name_of(lane), action.micro);
  }
  if (peer == position && has_hands_) {
    if (handed_s < 0)
      return wait(-1, "its {} is never handed over by stage {}: the hand is missing", name_of(lane), before);
    sent_s = ready_s = handed_s;
    return std::nullopt;
  }
  sent_s = made_s;
  ready_s = made_s + (peer == position ? 0 : cost_of(lane));
  return std::nullopt;
}

std::optional<Wait> Simulation::compute(int position, const Action& action) {
  double sent_s = 0, ready_s = 0;
  if (auto wait = input_ready(position, action, sent_s, ready_s)) return wait;
  const int stage = map_.stage_of(position, action.chunk);
  const double free_s = now_s_[at(position)];
  const double begin_s = std::max(free_s, ready_s);
  const double duration_s = duration_of(stage, action);
  report_.exposed_transfer_s[at(position)] += std::max(0.0, ready_s - std::max(free_s, sent_s));
  report_.busy_s[at(position)] += duration_s;
  advance(position, {begin_s, begin_s + duration_s});
  if (action.kind == ActionKind::backward_weights) return std::nullopt;
  const bool is_whole = action.bucket < 0 || action.bucket == segments_[at(stage)].back();
  const TransferLane lane = is_forward(action.kind) ? TransferLane::activation : TransferLane::gradient;
  if (is_whole) pass_of(stage, action.micro, lane).made_s = begin_s + duration_s;
  return std::nullopt;
}

void Simulation::send(int position, const Action& action, double sent_s) {
  const TransferLane lane = lane_of(action.kind);
  std::vector<Message>& queue = wire_of(position, action.peer, lane).messages;
  const int stage = map_.stage_of(position, action.chunk) + (lane == TransferLane::activation ? 1 : -1);
  const double begin_s = queue.empty() ? sent_s : std::max(sent_s, queue.back().arrival_s);
  const bool is_stage = stage >= 0 && stage < map_.stages();
  queue.push_back({.chunk = is_stage ? map_.chunk_of(stage) : 0,
                   .micro = action.micro,
                   .sent_s = sent_s,
                   .arrival_s = begin_s + cost_of(lane)});
}

void Simulation::receive(int position, const Action& action) {
  const TransferLane lane = lane_of(action.kind);
  pass_of(map_.stage_of(position, action.chunk), action.micro, lane).message =
      wire_of(action.peer, position, lane).received++;
}

/// A copy in memory; that its source is made is for the validator, or for who needs it.
void Simulation::hand(int position, const Action& action) {
  const double begin_s = now_s_[at(position)];
  const TransferLane lane =
      action.kind == ActionKind::hand_activation ? TransferLane::activation : TransferLane::gradient;
  pass_of(map_.stage_of(position, action.to_chunk), action.micro, lane).handed_s = begin_s + costs_.hand_s;
  advance(position, {begin_s, begin_s + costs_.hand_s});
}

/// Rendezvous: a send and its receive wait for each other, both sides then go on together.
std::optional<Wait> Simulation::meet(int position, const Action& action) {
  const int peer = action.peer;
  const auto alone = [&] { return wait(peer, "position {} is not at the other end of it", peer); };
  if (is_finished(peer)) return alone();
  const Action& other = current(peer);
  const bool do_meet = (is_send(action.kind) ? is_receive(other.kind) : is_send(other.kind)) &&
                       other.peer == position && lane_of(other.kind) == lane_of(action.kind);
  if (!do_meet) return alone();
  const int sender = is_send(action.kind) ? position : peer;
  const int receiver = is_send(action.kind) ? peer : position;
  const double met_s = std::max(now_s_[at(sender)], now_s_[at(receiver)]);
  const Action sent = current(sender), received = current(receiver);
  send(sender, sent, met_s);
  const double done_s = wire_of(sender, receiver, lane_of(sent.kind)).messages.back().arrival_s;
  receive(receiver, received);
  advance(sender, {met_s, done_s});
  advance(receiver, {met_s, done_s});
  return std::nullopt;
}

std::optional<Wait> Simulation::step(int position) {
  const Action action = current(position);
  const double now_s = now_s_[at(position)];
  if (is_compute(action.kind)) return compute(position, action);
  if (mode_ == SendMode::rendezvous && (is_send(action.kind) || is_receive(action.kind))) {
    return meet(position, action);
  }
  if (is_send(action.kind)) {
    send(position, action, now_s);
    advance(position, {now_s, now_s});
  } else if (is_receive(action.kind)) {
    receive(position, action);
    advance(position, {now_s, now_s});
  } else if (is_hand(action.kind)) {
    hand(position, action);
  } else {
    const int stage = map_.stage_of(position, action.chunk);
    const double cost_s = costs_.reduce_s.empty() ? 0 : costs_.reduce_s[at(stage)][at(action.bucket)];
    reduced_s_[at(position)] = std::max(now_s, reduced_s_[at(position)]) + cost_s;
    advance(position, {now_s, now_s});
  }
  return std::nullopt;
}

std::string Simulation::explain() {
  is_explaining_ = true;
  std::vector<Wait> waits(at(map_.positions()));
  for (int position = 0; position < map_.positions(); ++position) {
    if (!is_finished(position)) waits[at(position)] = *step(position);  // nobody moves any more
  }
  std::string text = "deadlock:";
  for (int position = 0; position < map_.positions(); ++position) {
    if (is_finished(position)) continue;
    text += fmt::format(" position {} stands at action {} ({}), because {};", position,
                        counter_[at(position)], to_string(current(position)), waits[at(position)].reason);
  }
  // Follow who waits for whom: it ends at a position that will never act, or runs in a circle.
  int position = 0;
  while (is_finished(position)) ++position;
  std::string path = std::to_string(position);
  std::set<int> seen;
  while (seen.insert(position).second) {
    position = waits[at(position)].peer;
    if (position < 0)
      return text + fmt::format(" the cause is at position {}", path.substr(path.rfind(' ') + 1));
    path += fmt::format(" -> {}", position);
    if (is_finished(position)) {
      return text + fmt::format(" {}, and position {} has finished: a send is missing", path, position);
    }
  }
  return text + fmt::format(" they wait in a circle: {}", path);
}

void Simulation::finish() {
  double computed_s = 0;
  for (int position = 0; position < map_.positions(); ++position) {
    computed_s = std::max(computed_s, now_s_[at(position)]);
  }
  report_.step_s = computed_s;
  for (double reduced_s : reduced_s_) report_.step_s = std::max(report_.step_s, reduced_s);
  report_.exposed_reduce_s = report_.step_s - computed_s;
  double busy_s = 0;
  for (double seconds : report_.busy_s) busy_s += seconds;
  const double all_s = report_.step_s * map_.positions();
  report_.bubble = all_s > 0 ? 1 - busy_s / all_s : 0;
}

Report Simulation::run() {
  for (bool has_moved = true; has_moved;) {
    has_moved = false;
    for (int position = 0; position < map_.positions(); ++position) {
      while (!is_finished(position) && !step(position)) has_moved = true;
    }
  }
  report_.is_complete = true;
  for (int position = 0; position < map_.positions(); ++position)
    report_.is_complete &= is_finished(position);
  if (!report_.is_complete) report_.explanation = explain();
  finish();
  return std::move(report_);
}

}  // namespace

Costs Costs::uniform(const StageMap& map, double forward_s, double backward_s) {
  Costs costs;
  costs.forward_s.assign(at(map.stages()), forward_s);
  costs.backward_s.assign(at(map.stages()), backward_s);
  return costs;
}

Report simulate(const Schedule& schedule, const StageMap& map, const Costs& costs, SendMode mode) {
  return Simulation(schedule, map, costs, mode).run();
}

}  // namespace ptrain
