#include "parallel/plan/launch_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "tests/parallel/plan/launch_cases.h"

namespace ptrain {
namespace {

TEST(LaunchOrder, EveryGridOfUpToEightRanksFits) {
  int plans = 0;
  for (int tensor : {1, 2, 4, 8}) {
    for (int pipeline = 1; tensor * pipeline <= 8; ++pipeline) {
      for (int data = 1; tensor * pipeline * data <= 8; ++data) {
        for (ScheduleName schedule : {ScheduleName::gpipe, ScheduleName::one_f_one_b}) {
          for (int zero : {0, 1}) {
            for (bool is_sequence_parallel : {false, true}) {
              const Plan plan = plan_of({tensor, pipeline, data, schedule, zero, is_sequence_parallel});
              EXPECT_EQ(launch_fault(plan.mesh, all_launches(plan)), "") << to_string(plan.mesh);
              EXPECT_NO_THROW(check_launch_order(plan));
              ++plans;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(plans, 150);
}

TEST(LaunchOrder, SchedulesWithChunksAndHalvesFit) {
  using enum ScheduleName;
  for (const auto& [schedule, virtual_stages] :
       {std::pair(interleaved, 2), {zero_bubble, 1}, {zero_bubble, 2}}) {
    for (int pipeline : {2, 3, 4}) {
      for (int micros : {1, 3, 5, 12}) {
        for (int data : {1, 2}) {
          const Plan plan = plan_of({.tensor = 2,
                                     .pipeline = pipeline,
                                     .data = data,
                                     .schedule = schedule,
                                     .micros = micros,
                                     .virtual_stages = virtual_stages});
          EXPECT_EQ(launch_fault(plan.mesh, all_launches(plan)), "")
              << name_of(schedule) << " " << virtual_stages << " " << to_string(plan.mesh) << " " << micros;
        }
      }
    }
  }
}

TEST(LaunchOrder, UnitsThatComeAndGoFit) {
  using enum ScheduleName;
  for (const auto& [schedule, virtual_stages] : {std::pair(gpipe, 1), {one_f_one_b, 1}, {interleaved, 2}}) {
    for (int zero : {2, 3}) {
      for (Recompute recompute : {Recompute::none, Recompute::full}) {
        for (int pipeline : {1, 2, 4}) {
          for (int micros : {1, 2, 5}) {
            for (int tensor : {1, 2}) {
              const Plan plan = plan_of({.tensor = tensor,
                                         .pipeline = pipeline,
                                         .data = 3,
                                         .schedule = schedule,
                                         .zero = zero,
                                         .is_sequence_parallel = tensor > 1,
                                         .micros = micros,
                                         .virtual_stages = virtual_stages,
                                         .recompute = recompute});
              EXPECT_EQ(launch_fault(plan.mesh, all_launches(plan)), "")
                  << name_of(schedule) << " zero " << zero << " " << to_string(plan.mesh) << " " << micros;
            }
          }
        }
      }
    }
  }
}

// A stage that has nothing to sum or gather goes on with the others all the same.
TEST(LaunchOrder, AStageWithoutTrainableParametersFits) {
  for (int zero : {0, 1, 2, 3}) {
    const Plan plan = plan_of({.tensor = 2, .pipeline = 4, .data = 2, .zero = zero, .frozen = {2, 4}});
    int without = 0;
    for (int rank = 0; rank < plan.mesh.world(); ++rank)
      without += flat_layout_of(plan, rank).trainable_elements == 0;
    EXPECT_EQ(without, 8) << "two of the four stages";
    EXPECT_EQ(launch_fault(plan.mesh, all_launches(plan)), "") << "zero " << zero;
  }
}

TEST(LaunchOrder, WhatIsSentAlongThePipelineIsWhatTheTrafficCounts) {
  for (bool is_sequence_parallel : {false, true}) {
    const Plan plan = plan_of({.tensor = 2, .pipeline = 4, .is_sequence_parallel = is_sequence_parallel});
    for (int rank = 0; rank < plan.mesh.world(); ++rank) {
      int64_t bytes = 0, messages = 0;
      for (const Launch& launch : launches_of(plan, rank)) {
        if (launch.kind != LaunchKind::send) continue;
        bytes += launch.bytes;
        ++messages;
      }
      EXPECT_EQ(bytes, traffic_of(plan, rank).pipeline.bytes);
      EXPECT_EQ(messages, traffic_of(plan, rank).pipeline.messages);
    }
  }
}

TEST(LaunchOrder, TheEdgesOfAPipelineAreItsNeighboursAndTheTiedEnds) {
  const std::vector<TransferEdge> expected = {
      {TransferLane::activation, 0, 1}, {TransferLane::activation, 1, 2}, {TransferLane::gradient, 1, 0},
      {TransferLane::gradient, 2, 1},   {TransferLane::tied, 0, 2},       {TransferLane::tied, 2, 0}};
  EXPECT_EQ(transfer_edges(plan_of({.pipeline = 3})), expected);
  EXPECT_TRUE(transfer_edges(plan_of({.data = 3})).empty());
  EXPECT_EQ(communication_streams(plan_of({.pipeline = 3})), 2 + 4);  // at every one of the three
  EXPECT_EQ(communication_streams(plan_of({.pipeline = 2})), 2 + 4);  // two lanes and the tied one both ways
  EXPECT_EQ(communication_streams(plan_of({.data = 3})), 2);
  EXPECT_EQ(communication_streams(plan_of({.tensor = 2, .data = 3})), 3);
}

TEST(LaunchOrder, TheFirstAndLastOfAnAxisStandForThoseBetween) {
  const Plan plan = plan_of({.tensor = 2, .pipeline = 2, .data = 2});
  const auto same = [](const Launch& a, const Launch& b) { return to_string(a) == to_string(b); };
  for (int rank = 0; rank < plan.mesh.world(); ++rank) {
    Coordinate first = plan.mesh.coordinate_of(rank);
    first.data = first.tensor = 0;
    EXPECT_TRUE(
        std::ranges::equal(launches_of(plan, rank), launches_of(plan, plan.mesh.rank_of(first)), same));
  }
}

}  // namespace
}  // namespace ptrain
