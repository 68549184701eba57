#include "parallel/plan/launch_order.h"

#include <set>
#include <tuple>

namespace ptrain {

std::vector<TransferEdge> transfer_edges(const Plan& plan) {
  std::set<std::tuple<TransferLane, int, int>> found;
  for (size_t position = 0; position < plan.schedule.programs.size(); ++position) {
    for (const Action& action : plan.schedule.programs[position]) {
      if (is_send(action.kind)) found.insert({lane_of(action.kind), static_cast<int>(position), action.peer});
    }
  }
  std::vector<TransferEdge> edges;
  for (const auto& [lane, from, to] : found) edges.push_back({lane, from, to});
  return edges;
}

}  // namespace ptrain
