#include "parallel/plan/launch_order.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"

namespace ptrain {
namespace {

/// First and last index of an axis.
std::vector<int> ends_of(int size) {
  return size == 1 ? std::vector{0} : std::vector{0, size - 1};
}

}  // namespace

std::string_view name_of(LaunchKind kind) {
  constexpr std::string_view names[] = {"all-reduce", "all-gather", "reduce-scatter",
                                        "send",       "receive",    "wait"};
  return names[static_cast<size_t>(kind)];
}

std::string_view name_of(LaunchWire wire) {
  constexpr std::string_view names[] = {"tensor group",    "data group",    "world",
                                        "activation lane", "gradient lane", "tied lane"};
  return names[static_cast<size_t>(wire)];
}

std::string to_string(const Launch& launch) {
  std::string text =
      fmt::format("{} of {} bytes on the {}", name_of(launch.kind), launch.bytes, name_of(launch.wire));
  if (launch.kind == LaunchKind::send) text += fmt::format(" to position {}", launch.peer);
  if (launch.kind == LaunchKind::receive) text += fmt::format(" from position {}", launch.peer);
  std::string what;
  const auto say = [&](const char* name, int value) {
    if (value >= 0) what += fmt::format("{}{} {}", what.empty() ? "" : ", ", name, value);
  };
  say("micro", launch.micro);
  say("unit", launch.unit);
  say("bucket", launch.bucket);
  say("stage", launch.stage);
  return what.empty() ? text : fmt::format("{} ({})", text, what);
}

std::vector<TransferEdge> transfer_edges(const Plan& plan) {
  std::set<std::tuple<TransferLane, int, int>> found;
  for (size_t position = 0; position < plan.schedule.programs.size(); ++position) {
    for (const Action& action : plan.schedule.programs[position]) {
      if (is_send(action.kind)) found.insert({lane_of(action.kind), static_cast<int>(position), action.peer});
    }
  }
  std::vector<TransferEdge> edges;
  const int first = plan.map.position_of(0), last = plan.map.position_of(plan.map.stages() - 1);
  if (plan.is_tied_apart && first != last) {
    found.insert({TransferLane::tied, first, last});
    found.insert({TransferLane::tied, last, first});
  }
  for (const auto& [lane, from, to] : found) edges.push_back({lane, from, to});
  return edges;
}

int communication_streams(const Plan& plan) {
  std::vector<int> ends(at(plan.mesh.pipeline));
  for (const TransferEdge& edge : transfer_edges(plan)) {
    ++ends[at(edge.from)];
    ++ends[at(edge.to)];
  }
  const int started = plan.mesh.tensor > 1 ? 2 : 1;
  return 1 + started + *std::ranges::max_element(ends);
}

void check_launch_order(const Plan& plan) {
  std::vector<RankLaunches> ranks;
  for (int position = 0; position < plan.mesh.pipeline; ++position) {
    for (int data : ends_of(plan.mesh.data)) {
      for (int tensor : ends_of(plan.mesh.tensor)) {
        const int rank = plan.mesh.rank_of({.pipeline = position, .data = data, .tensor = tensor});
        ranks.push_back({rank, launches_of(plan, rank)});
      }
    }
  }
  const std::string fault = launch_fault(plan.mesh, ranks);
  check(fault.empty(), "the devices of this plan would wait for each other for ever: {}", fault);
}

}  // namespace ptrain
