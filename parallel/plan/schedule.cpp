#include "parallel/plan/schedule.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

void check_counts(const StageMap& map, int micros) {
  check(map.positions() >= 1 && map.chunks() >= 1 && micros >= 1,
        "a schedule of {} positions, {} chunks and {} micro-batches", map.positions(), map.chunks(), micros);
}

Action compute(ActionKind kind, int chunk, int micro) {
  return {.kind = kind, .chunk = chunk, .micro = micro};
}

}  // namespace

std::string_view name_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::forward:
      return "forward";
    case ActionKind::backward:
      return "backward";
    case ActionKind::backward_input:
      return "backward of the input";
    case ActionKind::backward_weights:
      return "backward of the weights";
    case ActionKind::send_activation:
      return "send activation";
    case ActionKind::receive_activation:
      return "receive activation";
    case ActionKind::send_gradient:
      return "send gradient";
    case ActionKind::receive_gradient:
      return "receive gradient";
    case ActionKind::hand_activation:
      return "hand activation";
    case ActionKind::hand_gradient:
      return "hand gradient";
    case ActionKind::reduce:
      return "reduce";
  }
  return "?";
}

std::string_view name_of(TransferLane lane) {
  return lane == TransferLane::activation ? "activation"
         : lane == TransferLane::gradient ? "gradient"
                                          : "tied gradient";
}

bool is_forward(ActionKind kind) {
  return kind == ActionKind::forward;
}

bool is_backward(ActionKind kind) {
  return kind == ActionKind::backward || kind == ActionKind::backward_input ||
         kind == ActionKind::backward_weights;
}

bool is_compute(ActionKind kind) {
  return is_forward(kind) || is_backward(kind);
}

bool is_send(ActionKind kind) {
  return kind == ActionKind::send_activation || kind == ActionKind::send_gradient;
}

bool is_receive(ActionKind kind) {
  return kind == ActionKind::receive_activation || kind == ActionKind::receive_gradient;
}

bool is_hand(ActionKind kind) {
  return kind == ActionKind::hand_activation || kind == ActionKind::hand_gradient;
}

TransferLane lane_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::send_activation:
    case ActionKind::receive_activation:
      return TransferLane::activation;
    case ActionKind::send_gradient:
    case ActionKind::receive_gradient:
      return TransferLane::gradient;
    default:
      fail(ExitCode::defect, "{} has no lane", name_of(kind));
  }
}

std::string to_string(const Action& action) {
  const std::string chunk = action.chunk > 0 ? fmt::format("'{}", action.chunk) : "";
  const std::string bucket = action.bucket >= 0 ? fmt::format("/{}", action.bucket) : "";
  switch (action.kind) {
    case ActionKind::forward:
      return fmt::format("F{}{}", action.micro, chunk);
    case ActionKind::backward:
      return fmt::format("B{}{}{}", action.micro, chunk, bucket);
    case ActionKind::backward_input:
      return fmt::format("I{}{}", action.micro, chunk);
    case ActionKind::backward_weights:
      return fmt::format("W{}{}{}", action.micro, chunk, bucket);
    case ActionKind::hand_activation:
    case ActionKind::hand_gradient:
      return fmt::format("{} {}{} to '{}", name_of(action.kind), action.micro, chunk, action.to_chunk);
    case ActionKind::reduce:
      return fmt::format("reduce{}{}", bucket, chunk);
    default:
      return fmt::format("{} {}{} {} {}", name_of(action.kind), action.micro, chunk,
                         is_send(action.kind) ? "to" : "from", action.peer);
  }
}

Schedule gpipe(const StageMap& map, int micros) {
  check_counts(map, micros);
  if (map.stages() == 1) {
    Schedule alone = one_f_one_b(map, micros);
    alone.name = "gpipe";
    return alone;
  }
  std::vector<Action> program;
  for (int chunk = 0; chunk < map.chunks(); ++chunk) {
    for (int micro = 0; micro < micros; ++micro)
      program.push_back(compute(ActionKind::forward, chunk, micro));
  }
  for (int chunk = map.chunks() - 1; chunk >= 0; --chunk) {
    for (int micro = 0; micro < micros; ++micro) {
      program.push_back(compute(ActionKind::backward, chunk, micro));
    }
  }
  return {.name = "gpipe",
          .micros = micros,
          .programs = std::vector(static_cast<size_t>(map.positions()), program)};
}

Schedule one_f_one_b(const StageMap& map, int micros) {
  check_counts(map, micros);
  check(map.chunks() == 1, ExitCode::usage,
        "schedule 1f1b has one stage a rank, but virtual_stages = {}; set parallel.virtual_stages to 1",
        map.chunks());
  Schedule schedule{.name = "1f1b", .micros = micros, .programs = {}};
  for (int position = 0; position < map.positions(); ++position) {
    std::vector<Action> program;
    const int warm_up = std::min(map.positions() - 1 - position, micros);
    int forward = 0;
    while (forward < warm_up) program.push_back(compute(ActionKind::forward, 0, forward++));
    for (int backward = 0; backward < micros; ++backward) {
      if (forward < micros) program.push_back(compute(ActionKind::forward, 0, forward++));
      program.push_back(compute(ActionKind::backward, 0, backward));
    }
    schedule.programs.push_back(std::move(program));
  }
  return schedule;
}

}  // namespace ptrain
