#include "parallel/plan/estimate.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

size_t at(int64_t index) {
  return static_cast<size_t>(index);
}

double share_of(int ranks) {
  return static_cast<double>(ranks - 1) / ranks;
}

/// Seconds that a unit's tensor collectives take for one micro-batch.
double collectives_s(const Plan& plan, const Unit& unit, bool is_backward, double bytes_per_s) {
  if (plan.mesh.tensor == 1) return 0;
  double bytes = 0;
  for (const Collective& collective : unit.collectives) {
    if (collective.is_backward != is_backward) continue;
    const double ways = collective.kind == CollectiveKind::all_reduce ? 2 : 1;
    bytes += ways * static_cast<double>(local_rows(plan, Rows::all) * collective.columns *
                                        size_bytes(collective.dtype));
  }
  return bytes * share_of(plan.mesh.tensor) / bytes_per_s;
}

/// What the update reads and writes: gradient, both moments twice, master twice or parameter, parameter.
double update_bytes(const Plan& plan, int rank) {
  const StateTypes& types = plan.parallel.types;
  const FlatLayout layout = flat_layout_of(plan, rank);
  const int64_t elements = plan.zero == 0 ? layout.trainable_elements : shard_elements(layout);
  const int64_t each = size_bytes(types.grad) + 4 * size_bytes(types.moments) + 2 * size_bytes(types.master) +
                       size_bytes(types.param);
  return static_cast<double>(elements * each);
}

}  // namespace

Crossing crossing_of(const Mesh& mesh, int ranks_per_node) {
  if (mesh.world() <= ranks_per_node) return {};
  const bool is_aligned = ranks_per_node % mesh.tensor == 0;
  const int inner = mesh.tensor * mesh.data;
  return {.tensor = mesh.tensor > 1 && !is_aligned,
          .data = mesh.data > 1 && (ranks_per_node % inner != 0),
          .pipeline = mesh.pipeline > 1};
}

std::vector<int> typical_ranks(const Plan& plan) {
  std::vector<int> ranks;
  for (int position = 0; position < plan.mesh.pipeline; ++position) {
    for (int tensor = 0; tensor < plan.mesh.tensor; ++tensor) {
      ranks.push_back(plan.mesh.rank_of({.pipeline = position, .data = 0, .tensor = tensor}));
    }
  }
  return ranks;
}

Costs costs_on(const Plan& plan, const Hardware& hardware) {
  const Crossing crosses = crossing_of(plan.mesh, hardware.ranks_per_node);
  const auto speed = [&](bool is_outside) {
    return is_outside ? hardware.network_bytes_per_s : hardware.link_bytes_per_s;
  };
  const double flops_per_s = hardware.peak_flops * hardware.reachable;
  Costs costs;
  for (int stage = 0; stage < plan.map.stages(); ++stage) {
    const StagePlan& part = plan.stages[at(stage)];
    // 1. Compute: the plan's costs are FLOPs; the tensor axis adds its collectives.
    double forward_s = plan.costs.forward_s[at(stage)] / flops_per_s;
    double backward_s = plan.costs.backward_s[at(stage)] / flops_per_s;
    for (int64_t unit = part.units.begin; unit < part.units.end(); ++unit) {
      const Unit& what = plan.workload.units[at(unit)];
      forward_s += collectives_s(plan, what, false, speed(crosses.tensor));
      backward_s += collectives_s(plan, what, true, speed(crosses.tensor));
    }
    costs.forward_s.push_back(forward_s);
    costs.backward_s.push_back(backward_s);
    // 2. A bucket's reduction; with ZeRO-0 there and back.
    const int rank = plan.mesh.rank_of({.pipeline = part.position});
    const FlatLayout layout = flat_layout_of(plan, rank);
    std::vector<double> reduce_s;
    for (const FlatBucket& bucket : layout.buckets) {
      if (bucket.chunk != part.chunk) continue;
      const double bytes =
          static_cast<double>(bucket.elements.count * size_bytes(plan.parallel.types.reduce));
      const double ways = plan.parallel.zero == 0 ? 2 : 1;
      reduce_s.push_back(ways * bytes * share_of(plan.mesh.data) / speed(crosses.data));
    }
    costs.reduce_s.push_back(std::move(reduce_s));
  }
  costs.bucket_share = plan.costs.bucket_share;
  // 3. Transfers between stages.
  double bundle_bytes = 0;
  for (const RowTensor& tensor : plan.workload.boundary) {
    bundle_bytes += static_cast<double>(local_bytes(plan, tensor, 0));
  }
  costs.activation_s = costs.gradient_s = bundle_bytes / speed(crosses.pipeline);
  return costs;
}

Estimate estimate_of(const Plan& plan, const Hardware& hardware) {
  Estimate estimate;
  estimate.report = simulate(plan.schedule, plan.map, costs_on(plan, hardware));
  const Crossing crosses = crossing_of(plan.mesh, hardware.ranks_per_node);
  const double data_bytes_per_s = crosses.data ? hardware.network_bytes_per_s : hardware.link_bytes_per_s;
  for (int rank : typical_ranks(plan)) {
    const auto elements = static_cast<double>(flat_layout_of(plan, rank).trainable_elements);
    const double gathered =
        plan.parallel.zero == 0 ? 0 : elements * double(size_bytes(plan.parallel.types.param));
    estimate.gather_s = std::max(estimate.gather_s, gathered * share_of(plan.mesh.data) / data_bytes_per_s);
    estimate.update_s = std::max(estimate.update_s, update_bytes(plan, rank) / hardware.memory_bytes_per_s);
    estimate.most_bytes =
        std::max(estimate.most_bytes, static_cast<double>(ledger_of(plan, rank).total_bytes()));
  }
  estimate.step_s = estimate.report.step_s + estimate.gather_s + estimate.update_s;
  const double tokens = static_cast<double>(plan.parallel.global * plan.parallel.sequence_length);
  estimate.tokens_per_s = tokens / estimate.step_s;
  estimate.mfu =
      estimate.tokens_per_s * plan.workload.model_flops_per_token / (hardware.peak_flops * plan.mesh.world());
  estimate.does_fit = estimate.most_bytes + static_cast<double>(hardware.reserved_bytes) <=
                      static_cast<double>(hardware.memory_bytes);
  return estimate;
}

}  // namespace ptrain
