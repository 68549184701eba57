#include "parallel/plan/estimate.h"

#include <algorithm>
#include <numeric>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"

namespace ptrain {
namespace {

/// Reads and writes: gradient, both moments twice, master twice or parameter, parameter. In host memory the
/// gradient comes down and the parameter goes up beside that, bucket by bucket.
double update_s(const Plan& plan, int rank, const Hardware& hardware) {
  const StateTypes& types = plan.parallel.types;
  const auto grad = static_cast<double>(size_bytes(types.grad));
  const auto param = static_cast<double>(size_bytes(types.param));
  const double each = grad + 4 * static_cast<double>(size_bytes(types.moments)) +
                      2 * static_cast<double>(size_bytes(types.master)) + param;
  const FlatLayout layout = flat_layout_of(plan, rank);
  const auto elements =
      static_cast<double>(plan.zero == 0 ? layout.trainable_elements : shard_elements(layout));
  if (plan.parallel.offload == Offload::none || hardware.host_link_bytes_per_s <= 0)
    return elements * each / hardware.memory_bytes_per_s;
  return elements *
         std::max(each / hardware.host_bytes_per_s, std::max(grad, param) / hardware.host_link_bytes_per_s);
}

/// Seconds of each bucket's sum over the data axis; with ZeRO-0 there and back.
std::vector<double> reduce_s(const Plan& plan, const StagePlan& stage, const Hardware& hardware) {
  const FlatLayout layout = flat_layout_of(plan, plan.mesh.rank_of({.pipeline = stage.position}));
  std::vector<double> seconds;
  for (const FlatBucket& bucket : layout.buckets) {
    if (bucket.chunk != stage.chunk) continue;
    const double bytes = static_cast<double>(bucket.elements.count * size_bytes(plan.parallel.types.reduce));
    seconds.push_back((plan.zero == 0 ? 2 : 1) * bytes * sent_share(plan.mesh.data) /
                      bytes_per_s_along(Axis::data, plan.mesh, hardware));
  }
  return seconds;
}

double first_forward_s(const Plan& plan, const Report& report, const StagePlan& stage) {
  const std::vector<Action>& program = plan.schedule.programs[at(stage.position)];
  for (size_t i = 0; i < program.size(); ++i) {
    if (is_forward(program[i].kind) && program[i].chunk == stage.chunk)
      return report.intervals[at(stage.position)][i].begin_s;
  }
  return 0;
}

/// How much later than its first forward needs it the last of a stage's parameters is there: gathered from
/// the beginning of the step on in the order in which forward reads them.
double late_gather_s(const Plan& plan, const StagePlan& stage, double begin_s, double forward_s,
                     double bytes_per_s) {
  const FlatLayout layout = flat_layout_of(plan, plan.mesh.rank_of({.pipeline = stage.position}));
  double gathered_s = 0, late_s = 0, read = 0;
  for (size_t i = layout.buckets.size(); i-- > 0;) {  // forward runs against the order of buckets
    const FlatBucket& bucket = layout.buckets[i];
    if (bucket.chunk != stage.chunk) continue;
    gathered_s += static_cast<double>(bucket.elements.count * size_bytes(plan.parallel.types.param)) *
                  sent_share(plan.mesh.data) / bytes_per_s;
    late_s = std::max(late_s, gathered_s - begin_s - forward_s * read);
    read += static_cast<double>(bucket.units.count) / static_cast<double>(stage.units.count);
  }
  return late_s;
}

/// What nothing hides of the sums that every unit's last micro-batch starts where gradients add up in a tree.
double late_sums_s(const Plan& plan, const Costs& costs, int number) {
  if (!plan.has_unit_gradients() || plan.zero >= 2) return 0;
  const std::vector<double>& sums_s = costs.reduce_s[at(number)];
  return std::max(0.0, std::accumulate(sums_s.begin(), sums_s.end(), 0.0) - costs.backward_s[at(number)]);
}

}  // namespace

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
  Costs costs;
  for (int stage = 0; stage < plan.map.stages(); ++stage) {
    const StageTimes times = stage_times(plan, stage, hardware);
    const double backward_s = times.all_backward_s();
    costs.forward_s.push_back(times.all_forward_s());
    costs.backward_s.push_back(backward_s);
    costs.input_share.push_back(backward_s > 0 ? times.input_s / backward_s : 0.5);
    costs.reduce_s.push_back(reduce_s(plan, plan.stages[at(stage)], hardware));
  }
  costs.bucket_share = plan.costs.bucket_share;
  double bundle_bytes = 0;
  for (const RowTensor& tensor : plan.workload.boundary) {
    bundle_bytes += static_cast<double>(local_bytes(plan, tensor, 0));
  }
  costs.hand_s = 2 * bundle_bytes / hardware.memory_bytes_per_s;  // read and written
  costs.activation_s = costs.gradient_s =
      bundle_bytes / bytes_per_s_along(Axis::pipeline, plan.mesh, hardware);
  return costs;
}

Estimate estimate_of(const Plan& plan, const Hardware& hardware) {
  Estimate estimate;
  // 1. Forward and backward, and what of it is communication.
  const Costs costs = costs_on(plan, hardware);
  estimate.report = simulate(plan.schedule, plan.map, costs);
  const Report& report = estimate.report;
  const double busy_s = std::accumulate(report.busy_s.begin(), report.busy_s.end(), 0.0);
  const double computing_s = report.step_s - report.exposed_reduce_s;
  estimate.bubble = computing_s > 0 ? 1 - busy_s / (computing_s * plan.map.positions()) : 0;
  const double data_bytes_per_s = bytes_per_s_along(Axis::data, plan.mesh, hardware);
  double late_s = 0;
  for (int position = 0; position < plan.map.positions(); ++position) {
    double tensor_s = 0, sharded_s = 0;
    for (int chunk = 0; chunk < plan.map.chunks(); ++chunk) {
      const int number = plan.map.stage_of(position, chunk);
      const StagePlan& stage = plan.stages[at(number)];
      const StageTimes times = stage_times(plan, number, hardware);
      tensor_s += plan.micros * (times.tensor_forward_s + times.tensor_backward_s);
      sharded_s += plan.micros * (times.data_forward_s + times.data_backward_s);
      late_s = std::max(late_s, late_sums_s(plan, costs, number));
      if (plan.zero == 0 || plan.zero == 3) continue;
      estimate.gather_s =
          std::max(estimate.gather_s, late_gather_s(plan, stage, first_forward_s(plan, report, stage),
                                                    costs.forward_s[at(number)], data_bytes_per_s));
    }
    estimate.tensor_s = std::max(estimate.tensor_s, tensor_s);
    estimate.data_s = std::max(estimate.data_s, sharded_s);
    estimate.transfer_s = std::max(estimate.transfer_s, report.exposed_transfer_s[at(position)]);
  }
  // 2. What comes behind it, and what a rank holds.
  for (int rank : typical_ranks(plan)) {
    estimate.update_s = std::max(estimate.update_s, update_s(plan, rank, hardware));
    estimate.most_bytes =
        std::max(estimate.most_bytes, static_cast<double>(ledger_of(plan, rank).total_bytes()));
  }
  estimate.data_s += report.exposed_reduce_s + late_s + estimate.gather_s;
  estimate.exposed_s = estimate.tensor_s + estimate.transfer_s + estimate.data_s;
  estimate.step_s = report.step_s + late_s + estimate.gather_s + estimate.update_s;
  const double tokens = static_cast<double>(plan.parallel.global * plan.parallel.sequence_length);
  estimate.tokens_per_s = tokens / estimate.step_s;
  estimate.mfu =
      estimate.tokens_per_s * plan.workload.model_flops_per_token / (hardware.peak_flops * plan.mesh.world());
  estimate.does_fit = estimate.most_bytes + static_cast<double>(hardware.reserved_bytes) <=
                      static_cast<double>(hardware.memory_bytes);
  return estimate;
}

}  // namespace ptrain
