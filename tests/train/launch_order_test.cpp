// What a trainer communicates in a step, communicator by communicator, is what the plan's launches say.
#include "parallel/plan/launch_order.h"

#include <gtest/gtest.h>

#include "parallel/comm/recording_comm.h"
#include "tests/support/equivalence.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// "all_gather 1024" or "send 64 to 1 lane 0": what a call and a launch have in common.
std::string text_of(const Call& call) {
  const int64_t bytes = call.count * size_bytes(call.dtype);
  if (call.kind != CommKind::point_to_point) return fmt::format("{} {}", name_of(call.kind), bytes);
  return fmt::format("{} {} {} lane {}", call.is_receive ? "receive" : "send", bytes, call.peer,
                     static_cast<int>(call.lane));
}

std::string text_of(const Launch& launch) {
  switch (launch.kind) {
    case LaunchKind::all_reduce:
      return fmt::format("all_reduce {}", launch.bytes);
    case LaunchKind::all_gather:
      return fmt::format("all_gather {}", launch.bytes);
    case LaunchKind::reduce_scatter:
      return fmt::format("reduce_scatter {}", launch.bytes);
    default:
      return fmt::format("{} {} {} lane {}", name_of(launch.kind), launch.bytes, launch.peer,
                         static_cast<int>(launch.wire) - static_cast<int>(LaunchWire::activation));
  }
}

/// Calls that a device would launch: counts of tokens stay on the host.
std::vector<std::string> called(const Communicator& comm) {
  std::vector<std::string> texts;
  for (const Call& call : dynamic_cast<const RecordingCommunicator&>(comm).calls()) {
    if (call.dtype != DType::i64) texts.push_back(text_of(call));
  }
  return texts;
}

/// The plan's step begins with the gathers that the update before it started; a trainer's first one has none
/// and ends with those of its own.
std::vector<Launch> of_first_step(std::vector<Launch> launches) {
  const auto end = std::ranges::find_if(
      launches, [](const Launch& launch) { return launch.kind != LaunchKind::all_gather; });
  std::ranges::rotate(launches, end);
  return launches;
}

std::vector<std::string> planned(const std::vector<Launch>& launches,
                                 std::initializer_list<LaunchWire> wires) {
  std::vector<std::string> texts;
  for (const Launch& launch : launches) {
    if (launch.kind != LaunchKind::wait && std::ranges::find(wires, launch.wire) != wires.end())
      texts.push_back(text_of(launch));
  }
  return texts;
}

/// The head gathers statistics of a micro-batch's supervised rows, of which the plan knows the most there can
/// be. rows: by micro-batch.
void cut_statistics(const Plan& plan, const std::vector<int64_t>& rows, std::vector<Launch>& launches) {
  const auto head = static_cast<int>(std::ranges::find(plan.workload.units, UnitKind::head, &Unit::kind) -
                                     plan.workload.units.begin());
  for (const RowTensor& tensor : plan.workload.units[static_cast<size_t>(head)].scratch) {
    if (!tensor.is_from_each_rank) continue;
    for (Launch& launch : launches) {
      if (launch.unit == head && launch.bytes == local_bytes(plan, tensor, 0))
        launch.bytes = rows[static_cast<size_t>(launch.micro)] * plan.mesh.tensor * tensor.columns *
                       size_bytes(tensor.dtype);
    }
  }
}

TEST(LaunchOrder, OfATrainersStepIsThatOfThePlan) {
  const CurveCase golden("llama-gqa-tied");
  for (int world_size : {1, 2, 3, 4, 6}) {
    for (const Grid& grid : sample_of(golden, world_size, Cover::pairs)) {
      run_thread_ranks(world_size, [&](Communicator& host) {
        const Plan plan = *plan_on(golden, grid);
        const Batches batches(
            *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
            {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
        RecordingCommunicator world(host);
        Trainer trainer(golden.spec, golden.optimizer, plan, world, Context{});
        load_golden_weights(golden.weights, trainer.model());
        trainer.step(batches, 1, golden.steps);
        std::vector<int64_t> rows;
        for (int micro = 0; micro < plan.micros; ++micro)
          rows.push_back(batches.micro_batch(1, trainer.coordinate().data, micro).supervised);
        std::vector<Launch> launches = launches_of(plan, host.rank());
        if (plan.zero == 1 || plan.zero == 2) launches = of_first_step(launches);
        cut_statistics(plan, rows, launches);
        EXPECT_EQ(launches.empty(), world_size == 1);
        EXPECT_EQ(called(*trainer.comms().tensor), planned(launches, {LaunchWire::tensor}))
            << to_string(grid);
        EXPECT_EQ(called(*trainer.comms().data), planned(launches, {LaunchWire::data})) << to_string(grid);
        EXPECT_EQ(called(*trainer.comms().pipeline),
                  planned(launches, {LaunchWire::activation, LaunchWire::gradient, LaunchWire::tied}))
            << to_string(grid);
        if (world_size > 1) {
          EXPECT_EQ(called(world).back(), planned(launches, {LaunchWire::world}).back()) << to_string(grid);
        }
      });
    }
  }
}

/// What a unit's tensor group does with a micro-batch from the last time on that nothing of it was under way:
/// "gather 0, sum 1, wait 0", launches numbered.
std::string last_inside_unit(const std::vector<Launch>& launches, int micro, int unit) {
  std::string text;
  std::vector<int> seen;  // launches by number
  size_t waits = 0;
  for (int i = 0; i < std::ssize(launches); ++i) {
    const bool is_wait = launches[static_cast<size_t>(i)].kind == LaunchKind::wait;
    const int index = is_wait ? launches[static_cast<size_t>(i)].awaited : i;
    const Launch& launch = launches[static_cast<size_t>(index)];
    if (launch.wire != LaunchWire::tensor || launch.micro != micro || launch.unit != unit) continue;
    if (!is_wait && waits == seen.size()) {
      text.clear();
      seen.clear();
      waits = 0;
    }
    if (!is_wait) seen.push_back(index);
    waits += is_wait;
    const std::string_view name = is_wait ? "wait" : launch.kind == LaunchKind::all_gather ? "gather" : "sum";
    text +=
        fmt::format("{}{} {}", text.empty() ? "" : ", ", name, std::ranges::find(seen, index) - seen.begin());
  }
  return text;
}

TEST(LaunchOrder, OfALayerStartsWhatProductsHideBeforeItIsWaitedFor) {
  const CurveCase golden("llama-gqa-tied");
  const auto of_backward = [&](Grid grid) {
    return last_inside_unit(launches_of(*plan_on(golden, grid), 0), 0, 1);
  };
  Grid grid{.tensor = 2, .is_sequence_parallel = true};
  // The gradient's rows, the rows for the weight beside them, the sum of the input's gradient; twice, with
  // nothing under way between.
  const std::string half = "gather 0, gather 1, wait 0, sum 2, wait 1, wait 2";
  EXPECT_EQ(of_backward(grid), half);
  grid.tensor_strips = 2;
  EXPECT_EQ(
      of_backward(grid),
      "gather 0, gather 1, gather 2, gather 3, wait 0, wait 1, sum 4, sum 5, wait 2, wait 3, wait 4, wait 5");
  grid.is_sequence_parallel = false;
  EXPECT_EQ(of_backward(grid), "sum 0, sum 1, wait 0, wait 1");
  // The weight half takes turns: one comes while the other is multiplied.
  grid = {.tensor = 2, .pipeline = 2, .is_sequence_parallel = true, .schedule = ScheduleName::zero_bubble};
  EXPECT_EQ(of_backward(grid), "gather 0, gather 1, wait 0, gather 2, wait 1, gather 3, wait 2, wait 3");
}

}  // namespace
}  // namespace ptrain
