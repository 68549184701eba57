#include "parallel/plan/plan.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/buckets.h"
#include "parallel/plan/combinations.h"
#include "parallel/plan/stage_cut.h"
#include "parallel/plan/sum_tree.h"

namespace ptrain {
namespace {

/// "1, 2, 3 or 6"
std::string divisors_text(int64_t value) {
  std::vector<int64_t> divisors;
  for (int64_t divisor = 1; divisor <= value; ++divisor) {
    if (value % divisor == 0) divisors.push_back(divisor);
  }
  std::string text = std::to_string(divisors[0]);
  for (size_t i = 1; i < divisors.size(); ++i) {
    text += fmt::format("{}{}", i + 1 == divisors.size() ? " or " : ", ", divisors[i]);
  }
  return text;
}

void check_strips(const ParallelConfig& parallel) {
  const int strips = parallel.tensor_strips;
  check(strips >= 1 && strips <= max_tensor_strips, ExitCode::usage,
        "parallel.tensor_strips = {}; it is one of 1 to {}", strips, max_tensor_strips);
  check(strips == 1 || parallel.tensor > 1, ExitCode::usage,
        "parallel.tensor_strips = {}, but parallel.tensor = 1: nothing is sent inside a layer; set it to 1",
        strips);
  const int64_t rows = parallel.micro * parallel.sequence_length;
  check(strips == 1 || rows >= int64_t{strips} * parallel.tensor, ExitCode::usage,
        "parallel.tensor_strips = {}: a micro-batch of {} tokens on {} tensor ranks has no such strips; set "
        "it to {}",
        strips, rows, parallel.tensor, std::max<int64_t>(1, rows / parallel.tensor));
}

void check_sizes(const Workload& workload, const ParallelConfig& parallel) {
  check(workload.heads % parallel.tensor == 0, ExitCode::usage,
        "the model has {} attention heads, which parallel.tensor = {} does not divide; set it to {}",
        workload.heads, parallel.tensor, divisors_text(workload.heads));
  check(parallel.zero >= 0 && parallel.zero <= 3, ExitCode::usage,
        "parallel.zero = {}; it is one of 0, 1, 2, 3", parallel.zero);
  check_strips(parallel);
  check(parallel.micro >= 1 && parallel.global >= 1 && parallel.sequence_length >= 1, ExitCode::usage,
        "batch.micro = {}, batch.global = {} and data.sequence_length = {} must be at least 1",
        parallel.micro, parallel.global, parallel.sequence_length);
  const int64_t at_once = parallel.micro * parallel.data;
  const int64_t below = parallel.global / at_once * at_once;
  const std::string fix =
      below > 0 ? fmt::format("{} or {}", below, below + at_once) : std::to_string(at_once);
  check(parallel.global % at_once == 0, ExitCode::usage,
        "batch.global = {} is no multiple of batch.micro * data = {} * {} = {}; set it to {}",
        parallel.global, parallel.micro, parallel.data, at_once, fix);
  check(parallel.global / at_once <= 1'000'000, ExitCode::usage,
        "batch.global = {} makes {} micro-batches a step; raise batch.micro", parallel.global,
        parallel.global / at_once);
}

/// The pieces' share of one tensor rank, the same number on every rank so that all cut the same buckets.
int64_t elements_of(const Unit& unit, int tensor) {
  int64_t elements = 0;
  for (const UnitPiece& entry : unit.pieces) {
    if (entry.piece.is_trainable) elements += (entry.piece.shape.numel() + tensor - 1) / tensor;
  }
  return elements;
}

void cut(Plan& plan) {
  const std::vector<Range> ranges = cut_stages(plan.workload, plan.map.stages());
  for (int stage = 0; stage < plan.map.stages(); ++stage) {
    StagePlan part{.position = plan.map.position_of(stage),
                   .chunk = plan.map.chunk_of(stage),
                   .units = ranges[at(stage)],
                   .bucket_units = {}};
    std::vector<BucketUnit> units;
    for (int64_t unit = part.units.begin; unit < part.units.end(); ++unit) {
      const Unit& what = plan.workload.units[at(unit)];
      const bool is_tied = plan.is_tied_apart && (unit == 0 || what.kind == UnitKind::table);
      units.push_back({.elements = elements_of(what, plan.mesh.tensor),
                       .is_alone = is_tied || plan.has_unit_gradients()});
    }
    part.bucket_units = cut_buckets(units, part.units.begin, plan.parallel.bucket_elements);
    plan.stages.push_back(std::move(part));
  }
}

/// Costs of the stages in FLOPs of a rank, taken as seconds.
Costs costs_by_flops(const Plan& plan) {
  Costs costs;
  for (const StagePlan& stage : plan.stages) {
    double forward = 0, backward = 0;
    std::vector<double> shares;
    for (Range units : stage.bucket_units) {
      double bucket = 0;
      for (int64_t unit = units.begin; unit < units.end(); ++unit) {
        forward += plan.workload.units[at(unit)].forward_flops;
        bucket += plan.workload.units[at(unit)].backward_flops;
        if (plan.recompute_of(stage, unit) == Recompute::full)
          bucket += plan.workload.units[at(unit)].again_flops;
      }
      shares.push_back(bucket);
      backward += bucket;
    }
    for (double& share : shares) {
      share = backward > 0 ? share / backward : 1.0 / static_cast<double>(shares.size());
    }
    const double per_rank = static_cast<double>(plan.rows) / plan.mesh.tensor;
    costs.forward_s.push_back(forward * per_rank);
    costs.backward_s.push_back(backward * per_rank);
    costs.bucket_share.push_back(std::move(shares));
  }
  return costs;
}

StageMap map_of(const ParallelConfig& parallel) {
  const bool is_v = parallel.schedule == ScheduleName::zero_bubble && parallel.virtual_stages == 2;
  return StageMap(parallel.pipeline, parallel.virtual_stages,
                  is_v ? StageOrder::there_and_back : StageOrder::round);
}

/// What everybody computes, without transfers.
Schedule computed(const Plan& plan) {
  switch (plan.parallel.schedule) {
    case ScheduleName::gpipe:
      return gpipe(plan.map, plan.micros);
    case ScheduleName::one_f_one_b:
      return one_f_one_b(plan.map, plan.micros);
    case ScheduleName::interleaved:
      return interleaved(plan.map, plan.micros);
    case ScheduleName::zero_bubble:
      return plan.map.order() == StageOrder::there_and_back ? zero_bubble_v(plan.map, plan.micros)
                                                            : zero_bubble_h1(plan.map, plan.micros);
  }
  fail(ExitCode::defect, "no schedule");
}

Schedule lowered(const Plan& plan, const std::vector<int>& buckets) {
  Schedule schedule = with_reductions(with_transfers(computed(plan), plan.map), plan.map, buckets);
  return with_early_receives(with_slots(std::move(schedule), plan.map));
}

}  // namespace

std::string_view name_of(ScheduleName name) {
  constexpr std::string_view names[] = {"gpipe", "1f1b", "interleaved", "zero_bubble"};
  return names[static_cast<size_t>(name)];
}

std::string_view name_of(Recompute recompute) {
  constexpr std::string_view names[] = {"none", "selective", "full"};
  return names[static_cast<size_t>(recompute)];
}

std::string_view name_of(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce   ? "all-reduce"
         : kind == CollectiveKind::all_gather ? "all-gather"
                                              : "reduce-scatter";
}

int stages_of(const ParallelConfig& parallel) {
  const int stages = parallel.pipeline * parallel.virtual_stages;
  return parallel.is_grid_invariant ? std::max(2, stages) : stages;
}

Mesh mesh_of(const ParallelConfig& parallel, int world, std::string_view started) {
  const int64_t tensor = parallel.tensor, pipeline = parallel.pipeline, data = parallel.data;
  check(tensor >= 1 && pipeline >= 1, ExitCode::usage,
        "parallel.tensor = {} and parallel.pipeline = {} must be at least 1", tensor, pipeline);
  check(tensor <= 1'000'000 && pipeline <= 1'000'000 && data <= 1'000'000, ExitCode::usage,
        "tensor, pipeline, data = {}, {}, {}: at most 1,000,000 each", tensor, pipeline, data);
  check(data >= 1, ExitCode::usage,
        "tensor * pipeline = {} * {} = {}, but {} {} ranks; start {} ranks or choose a smaller grid", tensor,
        pipeline, tensor * pipeline, started, world, tensor * pipeline);
  const int64_t product = tensor * pipeline * data;
  const std::string other = world % (tensor * pipeline) == 0
                                ? fmt::format("set parallel.data to {}", world / (tensor * pipeline))
                                : "choose another grid";
  check(product == world, ExitCode::usage,
        "tensor * pipeline * data = {} * {} * {} = {}, but {} {} ranks; start {} ranks or {}", tensor,
        pipeline, data, product, started, world, product, other);
  return {.pipeline = parallel.pipeline, .data = parallel.data, .tensor = parallel.tensor};
}

const std::vector<Action>& Plan::program(int rank) const {
  return schedule.programs[at(mesh.coordinate_of(rank).pipeline)];
}

Plan make_plan(const Workload& workload, const ParallelConfig& parallel, int world,
               std::string_view started) {
  Plan plan;
  plan.workload = workload;
  plan.parallel = parallel;
  // 1. The grid and whether the model fits it.
  plan.mesh = mesh_of(parallel, world, started);
  check_sizes(workload, parallel);
  plan.map = map_of(parallel);
  plan.micros = static_cast<int>(parallel.global / (parallel.micro * parallel.data));
  check_combination(parallel, plan.micros);
  check_stages(parallel, std::ranges::count(workload.units, UnitKind::block, &Unit::kind));
  plan.rows = parallel.micro * parallel.sequence_length;
  plan.zero = parallel.data == 1 ? std::min(parallel.zero, 1) : parallel.zero;
  plan.is_tied_apart = workload.units.back().kind == UnitKind::table;
  // 2. Stages and their buckets. The program starts the sums of whole steps; sums of micro-batches start with
  // their units.
  cut(plan);
  std::vector<int> buckets;
  for (const StagePlan& stage : plan.stages)
    buckets.push_back(plan.has_unit_gradients() ? 0 : static_cast<int>(stage.bucket_units.size()));
  // 3. What everybody does, checked and timed.
  plan.schedule = lowered(plan, buckets);
  validate(plan.schedule, plan.map, buckets);
  plan.costs = costs_by_flops(plan);
  plan.report = simulate(plan.schedule, plan.map, plan.costs);
  check(plan.report.is_complete, "schedule {} of {} stages and {} micro-batches: {}", plan.schedule.name,
        plan.map.stages(), plan.micros, plan.report.explanation);
  plan.slots = slots_of(plan.schedule, plan.map);
  return plan;
}

int Plan::sum_levels() const {
  return parallel.is_grid_invariant && zero < 2 ? sum_tree_levels(micros) : 0;
}

Recompute Plan::recompute_of(const StagePlan& stage, int64_t unit) const {
  if (workload.units[at(unit)].kind != UnitKind::block) return Recompute::none;
  int64_t first_block = stage.units.begin;
  while (workload.units[at(first_block)].kind != UnitKind::block) ++first_block;
  return unit - first_block < parallel.recompute_blocks ? parallel.recompute : Recompute::none;
}

Recompute Plan::recompute_at(int position) const {
  Recompute most = Recompute::none;
  for (const StagePlan& stage : stages) {
    if (stage.position != position) continue;
    for (int64_t unit = stage.units.begin; unit < stage.units.end(); ++unit)
      most = std::max(most, recompute_of(stage, unit));
  }
  return most;
}

FlatLayout flat_layout_of(const Plan& plan, int rank) {
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  std::vector<FlatChunk> chunks;
  for (int chunk = 0; chunk < plan.map.chunks(); ++chunk) {
    const StagePlan& stage = plan.stages[at(plan.map.stage_of(position, chunk))];
    chunks.push_back({stage.units, stage.bucket_units});
  }
  return flat_layout(plan.workload, chunks, plan.mesh, rank);
}

TiedEnds tied_ends(const Plan& plan, const FlatLayout& layout, int rank) {
  if (!plan.is_tied_apart) return {};
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  const int first = plan.map.position_of(0), last = plan.map.position_of(plan.map.stages() - 1);
  TiedEnds ends;
  if (position == first) ends.embedding = layout.bucket_of_unit(0);
  if (position == last)
    ends.table = layout.bucket_of_unit(static_cast<int64_t>(plan.workload.units.size()) - 1);
  if (first != last && (position == first || position == last)) ends.peer = position == first ? last : first;
  return ends;
}

int64_t tied_elements(const Plan& plan, const FlatLayout& layout, int rank) {
  const TiedEnds ends = tied_ends(plan, layout, rank);
  return ends.peer < 0 ? 0 : compact_shard(layout, std::max(ends.embedding, ends.table)).count;
}

int64_t addend_elements(const Plan& plan, const FlatLayout& layout, int bucket) {
  int64_t elements = 0;
  for (const FlatPiece& flat : layout.pieces) {
    const Piece& piece = plan.workload.units[at(flat.unit)].pieces[at(flat.index)].piece;
    const bool is_inside = intersection(layout.buckets[at(bucket)].elements, flat.elements).count > 0;
    if (is_inside && has_addends(piece, plan.mesh)) elements += piece.shape.numel();
  }
  return elements;
}

}  // namespace ptrain
