// What every rank sends in a step, counted on its communicators: bytes and messages over each axis are those
// of traffic_of(), calls those of launches_of(), for every pair of choices.
#include <gtest/gtest.h>

#include <map>

#include "parallel/plan/launch_order.h"
#include "parallel/plan/sent.h"
#include "tests/support/equivalence.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

struct Counted {
  int64_t bytes = 0, messages = 0;
  std::map<CommKind, int64_t> calls;

  bool operator==(const Counted&) const = default;
  void add(const Sent& sent) {
    bytes += sent.bytes;
    messages += sent.messages;
  }
};

void PrintTo(const Counted& counted, std::ostream* out) {
  *out << counted.bytes << " bytes, " << counted.messages << " messages";
  for (const auto& [kind, calls] : counted.calls) *out << ", " << calls << " " << name_of(kind);
}

Counted between(const Traffic& before, const Traffic& after) {
  Counted counted;
  for (int i = 0; i < num_comm_kinds; ++i) {
    const auto kind = static_cast<CommKind>(i);
    counted.add({after[kind].bytes - before[kind].bytes, after[kind].messages - before[kind].messages});
    if (after[kind].calls != before[kind].calls) counted.calls[kind] = after[kind].calls - before[kind].calls;
  }
  return counted;
}

/// Calls by kind on these wires; receives are none of their own.
std::map<CommKind, int64_t> calls_of(const std::vector<Launch>& launches,
                                     std::initializer_list<LaunchWire> wires) {
  std::map<CommKind, int64_t> calls;
  for (const Launch& launch : launches) {
    if (std::ranges::find(wires, launch.wire) == wires.end()) continue;
    if (launch.kind == LaunchKind::all_reduce) ++calls[CommKind::all_reduce];
    if (launch.kind == LaunchKind::all_gather) ++calls[CommKind::all_gather];
    if (launch.kind == LaunchKind::reduce_scatter) ++calls[CommKind::reduce_scatter];
    if (launch.kind == LaunchKind::send) ++calls[CommKind::point_to_point];
  }
  return calls;
}

Counted planned(const AxisTraffic& traffic, const std::vector<Launch>& launches,
                std::initializer_list<LaunchWire> wires) {
  return {traffic.bytes, traffic.messages, calls_of(launches, wires)};
}

/// What the head gathers over the tensor axis for micro-batches with so many supervised rows: not in the
/// plan's traffic, because the rows are the data's. A golden case has fewer rows than the head takes at once.
Sent statistics_of(const Plan& plan, int rank, const std::vector<int64_t>& supervised) {
  Sent sum;
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  for (const StagePlan& stage : plan.stages) {
    for (int64_t i = stage.units.begin; i < stage.units.end() && stage.position == position; ++i) {
      const Unit& unit = plan.workload.units[static_cast<size_t>(i)];
      for (const RowTensor& tensor : unit.scratch) {
        if (!tensor.is_from_each_rank) continue;
        for (int64_t rows : supervised) {
          EXPECT_LE(rows, tensor.max_rows);
          const Sent sent =
              sent_in_all_gather(rows * tensor.columns * size_bytes(tensor.dtype), plan.mesh.tensor);
          sum.bytes += sent.bytes;
          sum.messages += sent.messages;
        }
      }
    }
  }
  return sum;
}

void expect_planned_traffic(const CurveCase& golden, const Grid& grid, Communicator& world) {
  const Plan plan = *plan_on(golden, grid);
  const Batches batches(
      *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
      {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
  Trainer trainer(golden.spec, golden.optimizer, plan, world, Context{});
  load_golden_weights(golden.weights, trainer);
  // The first step finds its parameters where they are; the second one is as all that follow.
  trainer.step(batches, 1, golden.steps);
  trainer.finish_exchange();
  MeshComms& comms = trainer.comms();
  const Traffic tensor = comms.tensor->traffic(), data = comms.data->traffic(),
                pipeline = comms.pipeline->traffic(), all = comms.world->traffic();
  trainer.step(batches, 2, golden.steps);
  trainer.finish_exchange();

  const std::string what = fmt::format("rank {}, {}", world.rank(), to_string(grid));
  const RankTraffic traffic = traffic_of(plan, world.rank());
  const std::vector<Launch> launches = launches_of(plan, world.rank());
  std::vector<int64_t> supervised;
  for (int micro = 0; micro < plan.micros; ++micro)
    supervised.push_back(batches.micro_batch(2, trainer.coordinate().data, micro).supervised);
  Counted on_tensor = planned(traffic.tensor, launches, {LaunchWire::tensor});
  on_tensor.add(statistics_of(plan, world.rank(), supervised));
  EXPECT_EQ(between(tensor, comms.tensor->traffic()), on_tensor) << "tensor, " << what;
  EXPECT_EQ(between(data, comms.data->traffic()), planned(traffic.data, launches, {LaunchWire::data}))
      << "data, " << what;
  EXPECT_EQ(
      between(pipeline, comms.pipeline->traffic()),
      planned(traffic.pipeline, launches, {LaunchWire::activation, LaunchWire::gradient, LaunchWire::tied}))
      << "pipeline, " << what;
  // All ranks meet for the number of supervised tokens, which stays on the host, and for losses and norm.
  Counted on_world{.calls = calls_of(launches, {LaunchWire::world})};
  ++on_world.calls[CommKind::all_reduce];
  on_world.add(sent_in_all_reduce(2, size_bytes(DType::i64), world.rank(), world.size()));
  for (const Launch& launch : launches) {
    if (launch.wire != LaunchWire::world) continue;
    on_world.add(sent_in_all_reduce(launch.bytes / size_bytes(DType::f64), size_bytes(DType::f64),
                                    world.rank(), world.size()));
  }
  EXPECT_EQ(on_world.calls[CommKind::all_reduce], grid.is_grid_invariant ? 3 : 2) << what;
  EXPECT_EQ(between(all, comms.world->traffic()), on_world) << "world, " << what;
}

TEST(Traffic, OfEveryRankIsThatOfThePlanForEveryPairOfChoices) {
  const std::vector<CurveCase> curves = golden_curves();
  for (int world_size : {2, 3, 4, 6, 8}) {
    for (const auto& [model, grid] : sample_of(all_cases(curves, world_size), Cover::pairs)) {
      run_thread_ranks(world_size, [&](Communicator& world) {
        expect_planned_traffic(curves[static_cast<size_t>(model)], grid, world);
      });
    }
  }
}

// Sums that no grid changes: one loss a micro-batch, trees in place of sums in rank order, the same bytes.
TEST(Traffic, OfGridInvariantSumsIsThatOfThePlan) {
  const CurveCase golden("llama-gqa-tied");
  int cases = 0;
  for (int world_size : {2, 4, 6}) {
    for (Grid grid : sample_of(golden, world_size, Cover::pairs)) {
      grid.is_grid_invariant = true;
      if (!plan_on(golden, grid)) continue;
      run_thread_ranks(world_size, [&](Communicator& world) { expect_planned_traffic(golden, grid, world); });
      ++cases;
    }
  }
  EXPECT_GT(cases, 20);
}

// k micro-batches gather and sum k times what one does, but for what is still in its place.
TEST(Traffic, UnderZeroThreeGrowsWithTheMicroBatches) {
  const CurveCase golden("llama-grid");
  const auto bytes_of = [&](int zero, int64_t micro) {
    const Grid grid{.data = 2, .micro = micro, .zero = zero};
    return traffic_of(*plan_on(golden, grid), 0).data.bytes;
  };
  // A rank's half of all f32 gradients and parameters: 8 rows are four micro-batches of 1, two of 2.
  const int64_t all_bytes =
      flat_layout_of(*plan_on(golden, {.data = 2, .zero = 2}), 0).trainable_elements * 4;
  EXPECT_EQ(bytes_of(2, 4), all_bytes);          // one sum, one gather, half of each
  EXPECT_EQ(bytes_of(2, 2), all_bytes * 3 / 2);  // two sums, one gather
  EXPECT_EQ(bytes_of(2, 1), all_bytes * 5 / 2);
  EXPECT_GT(bytes_of(3, 4), bytes_of(2, 4));  // backward gathers again
  EXPECT_GT(bytes_of(3, 1), 3 * bytes_of(3, 4));
  EXPECT_LE(bytes_of(3, 1), 4 * bytes_of(3, 4));
}

}  // namespace
}  // namespace ptrain
