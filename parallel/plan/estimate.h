// How long a step of a plan takes on given hardware, on paper: matrix products at a reachable share of the
// peak, messages at a reachable share of link speed, the schedule simulated. Pure; the assumptions are
// printed beside the result.
#pragma once

#include "parallel/plan/hardware.h"
#include "parallel/plan/plan.h"
#include "parallel/plan/stage_times.h"

namespace ptrain {

/// stage_times() of all stages summed up, transfers and reductions, for simulate().
Costs costs_on(const Plan& plan, const Hardware& hardware);

struct Estimate {
  Report report;      // simulate() with costs_on()
  double bubble = 0;  // idle share of the ranks' time in forward and backward
  double gather_s =
      0;  // of the parameters after the update: what the next step's first forward does not hide
  double update_s = 0;    // the optimizer: at memory speed, or over the host link and on the host
  double step_s = 0;      // all of it
  double tensor_s = 0;    // collectives of the tensor axis that nothing hides, of the rank that has most
  double transfer_s = 0;  // waiting for messages under way between stages, likewise
  double data_s = 0;      // sums and gathers of the data axis that nothing hides
  double exposed_s = 0;   // these three: communication that nothing hides
  double tokens_per_s = 0;
  double mfu = 0;         // model FLOPs (Workload::model_flops_per_token) a second / peak of all ranks
  double most_bytes = 0;  // of the rank that holds most, without the reserved
  bool does_fit = false;  // with the reserved
};
Estimate estimate_of(const Plan& plan, const Hardware& hardware);

/// Distinct ranks to look at: data coordinate 0 of every position and tensor coordinate; the others are
/// equal.
std::vector<int> typical_ranks(const Plan& plan);

}  // namespace ptrain
