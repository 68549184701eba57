// How long a step of a plan takes on given hardware, on paper: matrix products at a reachable share of the
// peak, messages at link speed, the schedule simulated. Pure; the assumptions are printed beside the result.
#pragma once

#include "parallel/plan/hardware.h"
#include "parallel/plan/plan.h"

namespace ptrain {

/// Which axes leave a node when ranks are placed in order, ranks_per_node to a node.
struct Crossing {
  bool tensor = false, data = false, pipeline = false;
};
Crossing crossing_of(const Mesh& mesh, int ranks_per_node);

/// Seconds of a stage's forward and backward of a micro-batch (tensor collectives included), of transfers and
/// of reductions.
Costs costs_on(const Plan& plan, const Hardware& hardware);

struct Estimate {
  Report report;        // simulate() with costs_on()
  double gather_s = 0;  // ZeRO-1's all-gather of parameters (or nothing)
  double update_s = 0;  // the optimizer, at memory speed
  double step_s = 0;    // all of it
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
