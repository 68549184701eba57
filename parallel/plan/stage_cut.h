// Cuts a sequence of units (embedding, blocks, head) into pipeline stages of nearly equal cost. Pure.
#pragma once

#include <vector>

#include "parallel/plan/workload.h"

namespace ptrain {

/// Ranges of units, one a stage, in order, covering all; every stage holds a block, the embedding is in the
/// first and the head in the last. The slowest stage is as fast as it can be; among such cuts the sum of the
/// squared stage costs is least; among those earlier stages are emptier (they hold more micro-batches).
/// `costs`: of each unit, any unit of time, not negative. Example: 7 equal blocks, free ends, 3 stages: 2, 2,
/// 3 blocks. Errors (usage): more stages than blocks.
std::vector<Range> cut_stages(const std::vector<double>& costs, const std::vector<UnitKind>& kinds,
                              int stages);

/// The same by the units' forward + backward FLOPs.
std::vector<Range> cut_stages(const Workload& workload, int stages);

}  // namespace ptrain
