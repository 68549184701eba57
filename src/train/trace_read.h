// A step of a run's trace.json as the plan knows it: when each action of each stage was computed. Not for
// other programs' traces.
#pragma once

#include <filesystem>
#include <optional>

#include "parallel/plan/measured.h"
#include "parallel/plan/plan.h"

namespace ptrain {

struct TracedStep {
  int64_t step = 0;
  MeasuredIntervals intervals;  // of data rank 0, tensor rank 0; seconds since the run's start
};

/// Reads `step`, or the last one that is whole. The file of a run that still goes on, or was killed, is as
/// good. Errors: input, with FILE:line: what is damaged or was not written by ptrain; usage: a trace of
/// another grid or schedule than the plan's, a step that is not in it, times of enqueueing alone (a GPU's).
TracedStep read_traced_step(const std::filesystem::path& path, const Plan& plan, std::optional<int64_t> step);

}  // namespace ptrain
