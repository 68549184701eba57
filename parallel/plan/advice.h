// What to change where a plan does not fit its hardware: the neighbours of a configuration that do, each with
// its price in time. Pure.
#pragma once

#include <string>
#include <vector>

#include "parallel/plan/choose.h"

namespace ptrain {

/// The keys in which `to` differs from `from`, as the user would write them: {"--parallel.zero 3"}. A part of
/// the blocks computed again is `--train.recompute auto`, which chooses that part.
std::vector<std::string> options_between(const ParallelConfig& from, const ParallelConfig& to);

struct Change {
  std::vector<std::string> options;
  Judged judged;
};

struct Advice {
  std::vector<Change> changes;  // that fit, the fastest first
  int ranks = 0;                // where none does: how many of that hardware would do; 0 = none found
  std::vector<std::string> options_there;  // and with which keys
};

/// The grids (tensor, pipeline, data) of a world in which tensor groups stay inside a node, as `from` with
/// those sizes. Their plans may still be refused.
std::vector<ParallelConfig> grids_of(const ParallelConfig& from, int world, const Workload& workload,
                                     const Hardware& hardware);

/// At most three changes: the fastest of each kind (recompute, ZeRO, offload, micro-batch, schedule, grid)
/// before the second of any, one change before several. Searched: every single change; where fewer than three
/// fit, pairs of them and grids with ZeRO-3 and recompute; where nothing does, worlds of 2, 4, … times the
/// ranks.
Advice advise(const Plan& plan, const PlanMaker& make, const Hardware& hardware);

}  // namespace ptrain
