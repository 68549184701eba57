#include "parallel/plan/launch_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

const ToySizes eight_heads = {.V = 256, .C = 64, .L = 8, .H = 8, .K = 4, .D = 8, .F = 96};

struct Grid {
  int tensor = 1, pipeline = 1, data = 1;
  ScheduleName schedule = ScheduleName::one_f_one_b;
  int zero = 1;
  bool is_sequence_parallel = false;
  int micros = 5;
  int virtual_stages = 1;
};

/// The collectives of a model with sequence parallelism in the place of the toy's all-reduces.
Workload workload_of(const Grid& grid) {
  Workload workload = toy_workload(eight_heads, grid.pipeline > 1 ? Tied::apart : Tied::on_one_stage);
  for (Unit& unit : workload.units) {
    if (!grid.is_sequence_parallel) continue;
    std::vector<Collective> paired;
    for (const Collective& collective : unit.collectives) {
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

Plan plan_of(const Grid& grid) {
  const ParallelConfig parallel{.tensor = grid.tensor,
                                .pipeline = grid.pipeline,
                                .data = grid.data,
                                .virtual_stages = grid.virtual_stages,
                                .schedule = grid.schedule,
                                .is_sequence_parallel = grid.is_sequence_parallel && grid.tensor > 1,
                                .zero = grid.zero,
                                .global = grid.micros * grid.data,
                                .sequence_length = 24,
                                .bucket_elements = 20'000};
  return make_plan(workload_of(grid), parallel, grid.tensor * grid.pipeline * grid.data);
}

std::vector<RankLaunches> all_launches(const Plan& plan) {
  std::vector<RankLaunches> ranks;
  for (int rank = 0; rank < plan.mesh.world(); ++rank) ranks.push_back({rank, launches_of(plan, rank)});
  return ranks;
}

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
}

// --- Planted faults ----------------------------------------------------------------------------------------

using Launches = std::vector<Launch>;

/// Index of the n-th launch of that kind on that wire.
size_t find(const Launches& launches, LaunchKind kind, Wire wire, int n = 0) {
  for (size_t i = 0; i < launches.size(); ++i) {
    if (launches[i].kind == kind && launches[i].wire == wire && n-- == 0) return i;
  }
  ADD_FAILURE() << "no " << name_of(kind) << " on the " << name_of(wire);
  return 0;
}

/// Takes launch `from` out and puts it in before `to`; waits keep what they await.
void move_launch(Launches& launches, size_t from, size_t to) {
  std::vector<size_t> order(launches.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  order.erase(order.begin() + static_cast<std::ptrdiff_t>(from));
  order.insert(order.begin() + static_cast<std::ptrdiff_t>(to > from ? to - 1 : to), from);
  Launches moved;
  for (size_t i : order) moved.push_back(launches[i]);
  for (Launch& launch : moved) {
    if (launch.awaited >= 0)
      launch.awaited =
          static_cast<int>(std::ranges::find(order, static_cast<size_t>(launch.awaited)) - order.begin());
  }
  launches = moved;
}

std::string fault_of(const Grid& grid, const std::vector<int>& where,
                     const std::function<void(Launches&)>& plant) {
  const Plan plan = plan_of(grid);
  std::vector<RankLaunches> ranks = all_launches(plan);
  for (int rank : where) plant(ranks[static_cast<size_t>(rank)].launches);
  return launch_fault(plan.mesh, ranks);
}

void expect_says(const std::string& fault, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    EXPECT_NE(fault.find(word), std::string::npos) << fault << "\n" << word;
}

TEST(LaunchOrder, AnotherOrderOnOneRankIsFound) {
  const std::string fault =
      fault_of({.tensor = 2, .data = 2, .is_sequence_parallel = true}, {3}, [](Launches& launches) {
        const size_t gather = find(launches, LaunchKind::all_gather, Wire::tensor, 2);
        std::swap(launches[gather], launches[gather + 1]);
      });
  expect_says(fault, {"tensor group of rank 2, operation 5: rank 2 launches all-gather of",
                      "rank 3 launches reduce-scatter of", "(micro 0, unit 3)"});
}

TEST(LaunchOrder, AMissingCollectiveIsFound) {
  const std::string fault = fault_of({.data = 3}, {1}, [](Launches& launches) {
    launches.erase(launches.begin() +
                   static_cast<std::ptrdiff_t>(find(launches, LaunchKind::all_gather, Wire::data)));
    const size_t last = find(launches, LaunchKind::all_reduce, Wire::world);
    EXPECT_LT(last, launches.size());
  });
  expect_says(fault, {"data group of rank 0, operation", "rank 0 launches all-gather", "rank 1 launches"});
}

TEST(LaunchOrder, ACollectiveThatNobodyElseLaunchesIsFound) {
  const std::string fault = fault_of({.tensor = 2}, {1}, [](Launches& launches) {
    launches.push_back({.kind = LaunchKind::all_reduce, .wire = Wire::tensor, .bytes = 4});
  });
  expect_says(fault,
              {"rank 0 launches nothing more, rank 1 launches all-reduce of 4 bytes on the tensor group"});
}

TEST(LaunchOrder, OtherCountsAreFound) {
  expect_says(fault_of({.data = 2}, {1},
                       [](Launches& launches) {
                         launches[find(launches, LaunchKind::reduce_scatter, Wire::data, 1)].bytes += 64;
                       }),
              {"data group of rank 0, operation 11: rank 0 launches reduce-scatter of", "(bucket 1)"});
  expect_says(fault_of({.pipeline = 3}, {1},
                       [](Launches& launches) {
                         launches[find(launches, LaunchKind::send, Wire::activation, 2)].bytes = 1;
                       }),
              {"activation lane from rank 1 to 2, operation 3:", "send of 1 bytes", "to position 2 (micro 2)",
               "rank 2 launches receive of"});
}

TEST(LaunchOrder, ACycleOverSeveralCommunicatorsIsFound) {
  // Every communicator's own order is right; between two of them rank 0 has the other one.
  const std::string fault = fault_of({.tensor = 2, .data = 2}, {0}, [](Launches& launches) {
    const size_t world = find(launches, LaunchKind::all_reduce, Wire::world);
    move_launch(launches, world, find(launches, LaunchKind::all_reduce, Wire::tensor));
  });
  expect_says(fault, {"rank 0 waits in all-reduce of 16 bytes on the world for rank 1",
                      "rank 1 waits in all-reduce of", "on the tensor group (micro 0, unit 1) for rank 0"});
}

TEST(LaunchOrder, AStartedCollectiveThatSomeRanksHaveBehindABlockingOneIsFound) {
  // Ranks 0 and 3 begin the bucket's sum before a tensor group's collective, ranks 1 and 2 behind it: where
  // the kernels leave each other no room they wait for each other in a ring.
  const std::string fault = fault_of({.tensor = 2, .data = 2}, {1, 2}, [](Launches& launches) {
    const size_t sum = find(launches, LaunchKind::reduce_scatter, Wire::data);
    size_t next = sum + 1;
    while (launches[next].kind != LaunchKind::all_reduce || launches[next].wire != Wire::tensor) ++next;
    move_launch(launches, sum, next + 1);
  });
  expect_says(
      fault, {"rank 0 waits in reduce-scatter of", "on the data group (bucket 0) for rank 2; rank 2 waits in",
              "on the tensor group", "for rank 3; rank 3 waits in reduce-scatter",
              "for rank 1; rank 1 waits in", "for rank 0"});
}

TEST(LaunchOrder, SendingOnlyAfterWhatComesBackIsFound) {
  // The first stage keeps the activation until its gradient has come: nobody goes on.
  const auto late = [](Launches& launches) {
    move_launch(launches, find(launches, LaunchKind::send, Wire::activation),
                find(launches, LaunchKind::wait, Wire::gradient) + 1);
  };
  expect_says(fault_of({.pipeline = 2, .micros = 1}, {0}, late),
              {"rank 0 waits in receive of", "on the gradient lane from position 1 (micro 0) for rank 1",
               "rank 1 waits in receive of", "on the activation lane from position 0 (micro 0) for rank 0"});
  // With two of them the second one's activation would be taken for the first one's.
  expect_says(fault_of({.pipeline = 2, .micros = 2}, {0}, late),
              {"activation lane from rank 0 to 1, operation 1: rank 0 launches send of", "(micro 1)",
               "rank 1 launches receive of", "(micro 0)"});
}

TEST(LaunchOrder, InOrderMessagesOnOneLaneBothWaysWouldDeadlock) {
  // Why a lane is one direction between two positions: sends that wait for a receive behind the peer's own
  // send never end, though each of them has its match.
  const Mesh mesh{.pipeline = 2};
  const auto message = [](LaunchKind kind, int peer) {
    return Launch{.kind = kind, .wire = Wire::activation, .is_started = true, .peer = peer, .bytes = 8};
  };
  const auto both = [&](int peer) {
    return Launches{
        message(LaunchKind::send, peer), {.awaited = 0}, message(LaunchKind::receive, peer), {.awaited = 2}};
  };
  const auto lanes = [&](int peer) {
    return Launches{
        message(LaunchKind::send, peer), message(LaunchKind::receive, peer), {.awaited = 0}, {.awaited = 1}};
  };
  expect_says(launch_fault(mesh, {{0, both(1)}, {1, both(0)}}),
              {"rank 0 waits in send of 8 bytes", "rank 1 waits in send of 8 bytes"});
  EXPECT_EQ(launch_fault(mesh, {{0, lanes(1)}, {1, lanes(0)}}), "");
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
