// The plan's schedule and a measured step of it in one picture. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/plan/measured.h"
#include "parallel/plan/plan.h"

namespace ptrain {

/// Plan above, step `step` of a run below, on one time scale; the titles hold length and bubble of each. The
/// plan is simulated with the measured forwards and backwards and free transfers: what differs is not the
/// work but waiting.
std::string svg_of_plan_and_run(const Plan& plan, int64_t step, const MeasuredIntervals& measured);

}  // namespace ptrain
