#include "parallel/plan/stage_times.h"

#include <algorithm>
#include <numeric>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/places.h"

namespace ptrain {
namespace {

/// Seconds of a unit's tensor collectives for one micro-batch that nothing hides.
struct TensorTimes {
  double forward_s = 0, input_s = 0, weights_s = 0;
};

/// Of a collective's t seconds in s strips. The other strips run beside the product of p seconds that makes
/// or reads them, one never does; all of them beside b seconds of products that do not need them:
///   max(t - p (s - 1) / s, t / s) - b, or 0
/// A CPU has no second stream: nothing hides.
double exposed_s(const Plan& plan, const UnitCollective& collective, const Hardware& hardware,
                 double seconds) {
  if (hardware.host_link_bytes_per_s <= 0) return seconds;
  const double rows_per_flop_s =
      static_cast<double>(plan.rows) / plan.mesh.tensor / (hardware.peak_flops * hardware.reachable);
  const bool has_beside = collective.is_of_weights || !plan.has_halves();
  const double product_s = collective.product_flops * rows_per_flop_s;
  const double beside_s = has_beside ? collective.beside_flops * rows_per_flop_s : 0;
  const double strips = plan.parallel.tensor_strips;
  return std::max(0.0, std::max(seconds - product_s * (strips - 1) / strips, seconds / strips) - beside_s);
}

TensorTimes tensor_times(const Plan& plan, const StagePlan& stage, int64_t index, const Hardware& hardware) {
  TensorTimes times;
  if (plan.mesh.tensor == 1) return times;
  const double bytes_per_s = bytes_per_s_along(Axis::tensor, plan.mesh, hardware);
  const bool is_full = plan.recompute_of(stage, index) == Recompute::full;
  for (const UnitCollective& collective : plan.workload.units[at(index)].collectives) {
    if (collective.is_for_halves && !plan.has_halves()) continue;
    const double ways = collective.kind == CollectiveKind::all_reduce ? 2 : 1;
    const double whole_s =
        ways *
        static_cast<double>(local_rows(plan, Rows::all) * collective.columns * size_bytes(collective.dtype)) *
        sent_share(plan.mesh.tensor) / bytes_per_s;
    const double seconds = exposed_s(plan, collective, hardware, whole_s);
    if (!collective.is_backward) times.forward_s += seconds;
    if (collective.is_backward) (collective.is_of_weights ? times.weights_s : times.input_s) += seconds;
    if (!collective.is_backward && collective.is_made_again && is_full) times.input_s += seconds;
  }
  return times;
}

/// The model's FLOPs per token that no unit counts: attention's scores and sums, the same in every block.
double attention_flops(const Plan& plan) {
  double counted = 0;
  int blocks = 0;
  for (const Unit& unit : plan.workload.units) {
    counted += unit.forward_flops + unit.backward_flops;
    blocks += unit.kind == UnitKind::block ? 1 : 0;
  }
  return blocks == 0 ? 0 : std::max(0.0, plan.workload.model_flops_per_token - counted) / blocks;
}

/// Bytes that cheap recompute reads and writes: what the norms leave, from their input.
double remade_bytes(const Plan& plan, const StagePlan& stage, int64_t index) {
  double bytes = 0;
  for (const RowTensor& tensor : plan.workload.units[at(index)].kept) {
    if (tensor.made_again == Recompute::selective && is_made_again(tensor, plan.recompute_of(stage, index)))
      bytes +=
          2 * static_cast<double>(local_bytes(plan, tensor, plan.mesh.rank_of({.pipeline = stage.position})));
  }
  return bytes;
}

/// How often each bucket's parameters are gathered in a step, by the forwards and by the backwards of its
/// stage.
struct Gathers {
  std::vector<int> forward, backward;  // [bucket]
};

Gathers gathers_of(const Plan& plan, int position, const FlatLayout& layout) {
  Gathers gathers{.forward = std::vector<int>(layout.buckets.size()),
                  .backward = std::vector<int>(layout.buckets.size())};
  if (plan.zero != 3) return gathers;
  Residency residency(unit_places(plan, layout));
  for (const Action& action : plan.schedule.programs[at(position)]) {
    if (!is_compute(action.kind)) continue;
    const Range units = plan.stages[at(plan.map.stage_of(position, action.chunk))].units;
    for (const int64_t unit : units_read(plan, units, is_forward(action.kind))) {
      const int bucket = layout.bucket_of_unit(unit);
      if (residency.take(bucket))
        ++(is_forward(action.kind) ? gathers.forward : gathers.backward)[at(bucket)];
    }
  }
  return gathers;
}

/// Adds what the data axis does with every micro-batch of ZeRO 2 and 3 beyond each unit's compute.
void add_data(const Plan& plan, const StagePlan& stage, const std::vector<double>& forward_s,
              const std::vector<double>& backward_s, double bytes_per_s, StageTimes& times) {
  if (plan.zero < 2) return;
  const FlatLayout layout = flat_layout_of(plan, plan.mesh.rank_of({.pipeline = stage.position}));
  const Gathers gathers = gathers_of(plan, stage.position, layout);
  const double share = sent_share(plan.mesh.data) / bytes_per_s;
  for (int64_t index = stage.units.begin; index < stage.units.end(); ++index) {
    const int bucket = layout.bucket_of_unit(index);
    const auto elements = static_cast<double>(layout.buckets[at(bucket)].elements.count);
    const double gather_s = elements * static_cast<double>(size_bytes(plan.parallel.types.param)) * share;
    const double sum_s = elements * static_cast<double>(size_bytes(plan.parallel.types.reduce)) * share;
    const double in_forward = gather_s * gathers.forward[at(bucket)] / plan.micros;
    const double in_backward = gather_s * gathers.backward[at(bucket)] / plan.micros + sum_s;
    const auto unit = at(index - stage.units.begin);
    times.data_forward_s += std::max(0.0, in_forward - forward_s[unit]);
    times.data_backward_s += std::max(0.0, in_backward - backward_s[unit]);
  }
}

}  // namespace

double sent_share(int ranks) {
  return static_cast<double>(ranks - 1) / ranks;
}

Crossing crossing_of(const Mesh& mesh, int ranks_per_node) {
  if (mesh.world() <= ranks_per_node) return {};
  const bool is_aligned = ranks_per_node % mesh.tensor == 0;
  const int inner = mesh.tensor * mesh.data;
  return {.tensor = mesh.tensor > 1 && !is_aligned,
          .data = mesh.data > 1 && (ranks_per_node % inner != 0),
          .pipeline = mesh.pipeline > 1};
}

double bytes_per_s_along(Axis axis, const Mesh& mesh, const Hardware& hardware) {
  const Crossing crosses = crossing_of(mesh, hardware.ranks_per_node);
  const bool is_outside = axis == Axis::tensor ? crosses.tensor
                          : axis == Axis::data ? crosses.data
                                               : crosses.pipeline;
  const double links = hardware.link_bytes_per_s * hardware.links_reach;
  if (!is_outside) return links;
  int on_a_node = 1;  // ranks of a group; messages between stages are no rings
  if (hardware.has_rings && axis == Axis::tensor) on_a_node = std::gcd(mesh.tensor, hardware.ranks_per_node);
  if (hardware.has_rings && axis == Axis::data)
    on_a_node = std::clamp(hardware.ranks_per_node / mesh.tensor, 1, mesh.data);
  return std::min(links, hardware.network_bytes_per_s * hardware.network_reaches * on_a_node);
}

StageTimes stage_times(const Plan& plan, int stage, const Hardware& hardware) {
  const double rows_per_flop_s =
      static_cast<double>(plan.rows) / plan.mesh.tensor / (hardware.peak_flops * hardware.reachable);
  const double attention = attention_flops(plan);
  const StagePlan& part = plan.stages[at(stage)];
  StageTimes times;
  std::vector<double> forward_s, backward_s;  // [unit], with tensor collectives
  for (int64_t index = part.units.begin; index < part.units.end(); ++index) {
    const Unit& unit = plan.workload.units[at(index)];
    const double scores = unit.kind == UnitKind::block ? attention : 0;
    const bool is_full = plan.recompute_of(part, index) == Recompute::full;
    // 1. Products. Attention's forward is a third of its FLOPs, and its backward all in the input half.
    const double forward = (unit.forward_flops + scores / 3) * rows_per_flop_s;
    const double again = (is_full ? (unit.again_flops + scores / 3) * rows_per_flop_s : 0) +
                         remade_bytes(plan, part, index) / hardware.memory_bytes_per_s;
    const double weights = unit.backward_flops / 2 * rows_per_flop_s;
    const double input = weights + scores * 2 / 3 * rows_per_flop_s + again;
    times.forward_s += forward;
    times.backward_s += input + weights;
    // 2. The tensor axis.
    const TensorTimes tensor = tensor_times(plan, part, index, hardware);
    times.tensor_forward_s += tensor.forward_s;
    times.tensor_backward_s += tensor.input_s + tensor.weights_s;
    times.input_s += input + tensor.input_s;
    forward_s.push_back(forward + tensor.forward_s);
    backward_s.push_back(input + weights + tensor.input_s + tensor.weights_s);
  }
  // 3. The tree of gradients.
  if (plan.parallel.is_grid_invariant && plan.zero < 2) {
    double elements = 0;
    const FlatLayout layout = flat_layout_of(plan, plan.mesh.rank_of({.pipeline = part.position}));
    for (const FlatBucket& bucket : layout.buckets) {
      if (bucket.chunk == part.chunk) elements += static_cast<double>(bucket.elements.count);
    }
    const double added_s = 3 * elements * static_cast<double>(size_bytes(plan.parallel.types.grad)) /
                           hardware.memory_bytes_per_s;
    times.backward_s += added_s;
    backward_s.back() += added_s;
  }
  // 4. The data axis.
  add_data(plan, part, forward_s, backward_s, bytes_per_s_along(Axis::data, plan.mesh, hardware), times);
  times.input_s += times.data_backward_s;
  return times;
}

}  // namespace ptrain
