// The plan of a run: everything that follows from (model, configuration, world), decided before anything is
// allocated. `ptrain plan` prints the very value that the run executes. Pure.
#pragma once

#include <string_view>
#include <vector>

#include "parallel/plan/flat.h"
#include "parallel/plan/ledger.h"
#include "parallel/plan/schedule.h"
#include "parallel/plan/simulate.h"
#include "parallel/plan/workload.h"

namespace ptrain {

struct StagePlan {
  int position = 0;
  int chunk = 0;
  Range units;                      // of Workload::units
  std::vector<Range> bucket_units;  // in the order in which backward finishes them
};

struct Plan {
  Workload workload;
  ParallelConfig parallel;
  Mesh mesh;
  StageMap map{1};
  int micros = 0;    // micro-batches a step and data rank
  int64_t rows = 0;  // N = micro * sequence_length
  int zero = 0;      // parallel.zero, but at most 1 on one data rank, where there is nothing to share
  bool is_tied_apart = false;  // first and last stage have a copy each of the embedding
  std::vector<StagePlan> stages;
  Schedule schedule;                    // lowered: transfers, hands, reductions, slots
  Costs costs;                          // by FLOPs (seconds at 1 FLOP/s), transfers free
  Report report;                        // simulate(schedule, map, costs)
  std::vector<std::vector<int>> slots;  // [position][chunk]

  const std::vector<Action>& program(int rank) const;
  /// Backward runs in input and weight halves.
  bool has_halves() const { return parallel.schedule == ScheduleName::zero_bubble; }
  /// A unit's gradients of one micro-batch are summed up elsewhere as soon as they are whole, instead of
  /// adding up in one buffer over the step: shards of sums (ZeRO 2 and 3), or a tree over micro-batches.
  bool has_unit_gradients() const { return zero >= 2 || parallel.is_grid_invariant; }
  /// Numbers that the loss is kept in: one, or one for each micro-batch of the step over all data ranks.
  int64_t losses() const { return parallel.is_grid_invariant ? parallel.global / parallel.micro : 1; }
  /// Grid-invariant sums: buffers of gradients for the tree over micro-batches, and integers for the exact
  /// sum of squares; 0 without.
  int sum_levels() const;
  int64_t exact_bins() const { return parallel.is_grid_invariant ? 2 * 256 : 0; }
  /// What backward makes again of a unit of a stage.
  Recompute recompute_of(const StagePlan& stage, int64_t unit) const;
  /// The most that the units of a position make again.
  Recompute recompute_at(int position) const;
};

/// What a workload must know: more than one stage makes a tied embedding's copy for the head; so do sums that
/// no grid changes, where one stage must add what two would add.
int stages_of(const ParallelConfig& parallel);

/// Refuses (usage), naming the values and the fix: a world that is not tensor * pipeline * data, heads that
/// tensor does not divide, more stages than blocks, a global batch that is no multiple of micro * data, what
/// is not built. `started` is the message's word for where the world's size comes from.
Plan make_plan(const Workload& workload, const ParallelConfig& parallel, int world,
               std::string_view started = "mpirun started");

/// parallel.tensor * parallel.pipeline * parallel.data as a mesh; throws as make_plan does.
Mesh mesh_of(const ParallelConfig& parallel, int world, std::string_view started = "mpirun started");

/// How `rank` lays out the weights of its stages.
FlatLayout flat_layout_of(const Plan& plan, int rank);

/// The bucket of the tied embedding on this rank's first and last stage, where they have a copy each; -1
/// where there is none. Both buckets have the same sizes.
struct TiedEnds {
  int embedding = -1, table = -1;
  int peer = -1;  // position of the other end; -1 where both are here
};
TiedEnds tied_ends(const Plan& plan, const FlatLayout& layout, int rank);
/// Elements of its gradient that come from the other end: a shard; 0 where nothing comes.
int64_t tied_elements(const Plan& plan, const FlatLayout& layout, int rank);

/// Elements of a bucket's weights, whole, whose gradients are summed over the tensor group.
int64_t addend_elements(const Plan& plan, const FlatLayout& layout, int bucket);

/// Rows of an activation with these Rows on a rank: N, or its share under sequence parallelism, padded.
int64_t local_rows(const Plan& plan, Rows rows);
/// Of all rows, those of a strip.
int64_t strip_rows(const Plan& plan, int strip);
/// Elements of one row of `tensor` on `rank`.
int64_t local_columns(const Plan& plan, const RowTensor& tensor, int rank);
/// Bytes of `tensor` on `rank` for one micro-batch.
int64_t local_bytes(const Plan& plan, const RowTensor& tensor, int rank);

/// Everything that `rank` holds from the first step on.
Ledger ledger_of(const Plan& plan, int rank);
/// What lies in the host's pinned memory where the optimizer is offloaded, and only then: moments and master,
/// the parameters that the rank updates, and gradients on their way.
Ledger host_ledger_of(const Plan& plan, int rank);
/// Host memory of the copy that saves beside training are written from: of each element that the rank updates
/// its weight in master precision and both moments, in f32. 0 where nothing is saved so.
int64_t snapshot_bytes(const Plan& plan, int rank);
/// Buckets whose gradients are in host memory at a time: one that the CPU works on and one that comes.
inline constexpr int64_t offload_places = 2;

/// What a rank sends over one axis in one step, exactly, between hosts. n ranks, S bytes: all-reduce
/// 2 S (n - 1) / n in 2 (n - 1) messages, all-gather and reduce-scatter half of it; sent.h knows where small
/// and long ones differ. Not in it, because their length is the data's or they run over all ranks: three
/// numbers of each supervised row, which the head gathers over the tensor axis, the number of a step's
/// supervised tokens, its losses and its norm.
struct AxisTraffic {
  int64_t bytes = 0;
  int64_t messages = 0;
};
struct RankTraffic {
  AxisTraffic tensor, pipeline, data;
};
RankTraffic traffic_of(const Plan& plan, int rank);

}  // namespace ptrain
