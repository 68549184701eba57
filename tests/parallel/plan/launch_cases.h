// Plans of a small model on grids, and what their ranks launch, for tests of the launch order.
#pragma once

#include <vector>

#include "parallel/plan/launch_order.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {

inline const ToySizes eight_heads = {.V = 256, .C = 64, .L = 8, .H = 8, .K = 4, .D = 8, .F = 96};

struct LaunchGrid {
  int tensor = 1, pipeline = 1, data = 1;
  ScheduleName schedule = ScheduleName::one_f_one_b;
  int zero = 1;
  bool is_sequence_parallel = false;
  int micros = 5;
  int virtual_stages = 1;
  Recompute recompute = Recompute::none;
  Range frozen{};  // blocks without trainable parameters
};

/// The collectives of a model with sequence parallelism in the place of the toy's all-reduces.
inline Workload workload_of(const LaunchGrid& grid) {
  Workload workload = toy_workload(eight_heads, grid.pipeline > 1 ? Tied::apart : Tied::on_one_stage);
  for (int64_t block = grid.frozen.begin; block < grid.frozen.end(); ++block) {
    for (UnitPiece& piece : workload.units[static_cast<size_t>(block) + 1].pieces)
      piece.piece.is_trainable = false;
  }
  for (Unit& unit : workload.units) {
    for (UnitCollective& collective : unit.collectives) collective.is_made_again = !collective.is_backward;
    if (!grid.is_sequence_parallel) continue;
    std::vector<UnitCollective> paired;
    for (const UnitCollective& collective : unit.collectives) {
      paired.push_back(collective);
      paired.back().kind = CollectiveKind::all_gather;
      paired.push_back(collective);
      paired.back().kind = CollectiveKind::reduce_scatter;
    }
    unit.collectives = paired;
  }
  Unit& head = workload.units[static_cast<size_t>(eight_heads.L) + 1];
  head.scratch.push_back(
      {.name = "statistics of all parts", .columns = 3, .max_rows = 10, .is_from_each_rank = true});
  return workload;
}

inline Plan plan_of(const LaunchGrid& grid) {
  const ParallelConfig parallel{.tensor = grid.tensor,
                                .pipeline = grid.pipeline,
                                .data = grid.data,
                                .virtual_stages = grid.virtual_stages,
                                .schedule = grid.schedule,
                                .is_sequence_parallel = grid.is_sequence_parallel && grid.tensor > 1,
                                .zero = grid.zero,
                                .global = grid.micros * grid.data,
                                .sequence_length = 24,
                                .recompute = grid.recompute,
                                .bucket_elements = 20'000};
  return make_plan(workload_of(grid), parallel, grid.tensor * grid.pipeline * grid.data);
}

inline std::vector<RankLaunches> all_launches(const Plan& plan) {
  std::vector<RankLaunches> ranks;
  for (int rank = 0; rank < plan.mesh.world(); ++rank) ranks.push_back({rank, launches_of(plan, rank)});
  return ranks;
}

}  // namespace ptrain
