// What the devices of a plan communicate, rank by rank in the order of launching, and whether the ranks fit
// together: NCCL's operations have no tags, and one that waits on a GPU for a rank that waits for another one
// is a hang without a word. Pure; not for running anything.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/plan/plan.h"

namespace ptrain {

/// Messages of one lane from one position of the pipeline to another.
struct TransferEdge {
  TransferLane lane = TransferLane::activation;
  int from = 0;
  int to = 0;

  bool operator==(const TransferEdge&) const = default;
};
/// All that the plan sends along, each once, in the order of (lane, from, to).
std::vector<TransferEdge> transfer_edges(const Plan& plan);

}  // namespace ptrain
