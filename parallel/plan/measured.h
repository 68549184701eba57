// What a run of a schedule took, in the words of the simulator: the same report, and the costs to simulate
// the schedule with. Pure.
#pragma once

#include <vector>

#include "parallel/plan/simulate.h"

namespace ptrain {

/// [position][action of its program] as measured; those of compute count, all on one clock.
using MeasuredIntervals = std::vector<std::vector<Interval>>;

/// Costs of every stage: the mean over its micro-batches of forward and backward, the share of backward's
/// input half, and the buckets' shares of the last micro-batch. Transfers and reductions cost nothing: what
/// they took shows as the difference to what was measured.
Costs measured_costs(const Schedule& schedule, const StageMap& map, const MeasuredIntervals& intervals);

/// What simulate() would say of it: times since the first compute began, step_s until the last one ended, the
/// bubble, busy_s per position and the intervals (zero length where an action is no compute).
Report measured_report(const Schedule& schedule, const StageMap& map, const MeasuredIntervals& intervals);

}  // namespace ptrain
