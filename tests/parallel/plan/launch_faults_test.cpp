// Planted faults in what ranks launch: each is found before anything runs, and said in words.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/parallel/plan/launch_cases.h"

namespace ptrain {
namespace {

using Launches = std::vector<Launch>;

/// Index of the n-th launch of that kind on that wire.
size_t find(const Launches& launches, LaunchKind kind, LaunchWire wire, int n = 0) {
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

/// Takes out the waits for nothing, and those for what has become one.
void drop_waits(Launches& launches) {
  const auto is_gone = [&](const Launch& launch) {
    if (launch.kind != LaunchKind::wait) return false;
    return launch.awaited < 0 || launches[static_cast<size_t>(launch.awaited)].kind == LaunchKind::wait;
  };
  std::vector<int> moved_to(launches.size());
  Launches kept;
  for (size_t i = 0; i < launches.size(); ++i) {
    moved_to[i] = static_cast<int>(kept.size());
    if (!is_gone(launches[i])) kept.push_back(launches[i]);
  }
  for (Launch& launch : kept) {
    if (launch.awaited >= 0) launch.awaited = moved_to[static_cast<size_t>(launch.awaited)];
  }
  launches = kept;
}

std::string fault_of(const LaunchGrid& grid, const std::vector<int>& where,
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

TEST(LaunchFaults, AnotherOrderOnOneRankIsFound) {
  const std::string fault =
      fault_of({.tensor = 2, .data = 2, .is_sequence_parallel = true}, {3}, [](Launches& launches) {
        std::swap(launches[find(launches, LaunchKind::all_gather, LaunchWire::tensor, 2)],
                  launches[find(launches, LaunchKind::reduce_scatter, LaunchWire::tensor, 2)]);
      });
  expect_says(fault, {"tensor group of rank 2, operation 5: rank 2 launches all-gather of",
                      "rank 3 launches reduce-scatter of", "(micro 0, unit 3)"});
}

TEST(LaunchFaults, AMissingCollectiveIsFound) {
  const std::string fault = fault_of({.data = 3}, {1}, [](Launches& launches) {
    launches.erase(launches.begin() +
                   static_cast<std::ptrdiff_t>(find(launches, LaunchKind::all_gather, LaunchWire::data)));
    const size_t last = find(launches, LaunchKind::all_reduce, LaunchWire::world);
    EXPECT_LT(last, launches.size());
  });
  expect_says(fault, {"data group of rank 0, operation", "rank 0 launches all-gather", "rank 1 launches"});
}

TEST(LaunchFaults, ACollectiveThatNobodyElseLaunchesIsFound) {
  const std::string fault = fault_of({.tensor = 2}, {1}, [](Launches& launches) {
    launches.push_back({.kind = LaunchKind::all_reduce, .wire = LaunchWire::tensor, .bytes = 4});
  });
  expect_says(fault,
              {"rank 0 launches nothing more, rank 1 launches all-reduce of 4 bytes on the tensor group"});
}

TEST(LaunchFaults, OtherCountsAreFound) {
  expect_says(fault_of({.data = 2}, {1},
                       [](Launches& launches) {
                         launches[find(launches, LaunchKind::reduce_scatter, LaunchWire::data, 1)].bytes +=
                             64;
                       }),
              {"data group of rank 0, operation 11: rank 0 launches reduce-scatter of", "(bucket 1)"});
  expect_says(fault_of({.pipeline = 3}, {1},
                       [](Launches& launches) {
                         launches[find(launches, LaunchKind::send, LaunchWire::activation, 2)].bytes = 1;
                       }),
              {"activation lane from rank 1 to 2, operation 3:", "send of 1 bytes",
               "to position 2 (micro 2, stage 2)", "rank 2 launches receive of"});
}

TEST(LaunchFaults, ACycleOverSeveralCommunicatorsIsFound) {
  // Every communicator's own order is right; between two of them rank 0 has the other one.
  const std::string fault = fault_of({.tensor = 2, .data = 2}, {0}, [](Launches& launches) {
    const size_t world = find(launches, LaunchKind::all_reduce, LaunchWire::world);
    move_launch(launches, world, find(launches, LaunchKind::all_reduce, LaunchWire::tensor));
  });
  expect_says(fault, {"rank 0 waits in all-reduce of 16 bytes on the world for rank 1",
                      "rank 1 waits in all-reduce of", "on the tensor group (micro 0, unit 1) for rank 0"});
}

TEST(LaunchFaults, AStartedCollectiveThatSomeRanksHaveBehindABlockingOneIsFound) {
  // Ranks 0 and 3 begin the bucket's sum before a tensor group's collective, ranks 1 and 2 behind it: where
  // the kernels leave each other no room they wait for each other in a ring.
  const std::string fault = fault_of({.tensor = 2, .data = 2}, {1, 2}, [](Launches& launches) {
    const size_t sum = find(launches, LaunchKind::reduce_scatter, LaunchWire::data);
    size_t next = sum + 1;
    while (launches[next].kind != LaunchKind::all_reduce || launches[next].wire != LaunchWire::tensor) ++next;
    move_launch(launches, sum, next + 1);
  });
  expect_says(
      fault, {"rank 0 waits in reduce-scatter of", "on the data group (bucket 0) for rank 2; rank 2 waits in",
              "on the tensor group", "for rank 3; rank 3 waits in reduce-scatter",
              "for rank 1; rank 1 waits in", "for rank 0"});
}

TEST(LaunchFaults, SendingOnlyAfterWhatComesBackIsFound) {
  // The first stage keeps the activation until its gradient has come: nobody goes on.
  const auto late = [](Launches& launches) {
    move_launch(launches, find(launches, LaunchKind::send, LaunchWire::activation),
                find(launches, LaunchKind::wait, LaunchWire::gradient) + 1);
  };
  expect_says(
      fault_of({.pipeline = 2, .micros = 1}, {0}, late),
      {"rank 0 waits in receive of", "on the gradient lane from position 1 (micro 0, stage 1) for rank 1",
       "rank 1 waits in receive of", "on the activation lane from position 0 (micro 0, stage 1) for rank 0"});
  // With two of them the second one's activation would be taken for the first one's.
  expect_says(fault_of({.pipeline = 2, .micros = 2}, {0}, late),
              {"activation lane from rank 0 to 1, operation 1: rank 0 launches send of", "(micro 1, stage 1)",
               "rank 1 launches receive of", "(micro 0, stage 1)"});
}

TEST(LaunchFaults, InOrderMessagesOnOneLaneBothWaysWouldDeadlock) {
  // Why a lane is one direction between two positions: sends that wait for a receive behind the peer's own
  // send never end, though each of them has its match.
  const Mesh mesh{.pipeline = 2};
  const auto message = [](LaunchKind kind, int peer) {
    return Launch{.kind = kind, .wire = LaunchWire::activation, .is_started = true, .peer = peer, .bytes = 8};
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

TEST(LaunchFaults, ARankThatNeverArrivesIsFound) {
  // A stage that takes itself to have nothing to train on one of its data ranks.
  const LaunchGrid grid{.pipeline = 2, .data = 2, .zero = 2, .micros = 2};
  const auto drop_all = [](LaunchKind kind, LaunchWire wire) {
    return [=](Launches& launches) {
      for (Launch& launch : launches) {
        if (launch.kind != kind || launch.wire != wire) continue;
        launch = {.kind = LaunchKind::wait, .awaited = -1};
      }
      drop_waits(launches);
    };
  };
  expect_says(fault_of(grid, {3}, drop_all(LaunchKind::reduce_scatter, LaunchWire::data)),
              {"data group of rank 2, operation", "rank 2 launches reduce-scatter of", "rank 3 launches"});
  // And one that leaves before the end of the step.
  expect_says(fault_of(grid, {1}, drop_all(LaunchKind::all_reduce, LaunchWire::world)),
              {"world, operation 1: rank 0 launches all-reduce of 16 bytes", "rank 1 launches nothing more"});
}

TEST(LaunchFaults, ACollectiveOnRankZeroOnlyIsFound) {
  for (const LaunchWire wire : {LaunchWire::tensor, LaunchWire::data, LaunchWire::world}) {
    const std::string fault = fault_of({.tensor = 2, .data = 2}, {0}, [&](Launches& launches) {
      launches.push_back({.kind = LaunchKind::all_reduce, .wire = wire, .bytes = 8});
    });
    expect_says(fault, {"rank 0 launches all-reduce of 8 bytes on the " + std::string(name_of(wire)),
                        "launches nothing more"});
  }
}

const LaunchGrid interleaved_grid{
    .pipeline = 2, .schedule = ScheduleName::interleaved, .micros = 4, .virtual_stages = 2};

TEST(LaunchFaults, AnotherOrderOfARanksStagesIsFound) {
  // The same micro-batch's activation for another of the receiver's two stages: as long, and of one lane.
  const std::string fault = fault_of(interleaved_grid, {0}, [](Launches& launches) {
    const size_t first = find(launches, LaunchKind::send, LaunchWire::activation);
    for (size_t other = first + 1; other < launches.size(); ++other) {
      if (launches[other].kind != LaunchKind::send || launches[other].micro != launches[first].micro)
        continue;
      if (launches[other].wire != LaunchWire::activation) continue;
      return std::swap(launches[first].stage, launches[other].stage);
    }
    ADD_FAILURE() << "only one stage is sent to";
  });
  expect_says(fault, {"activation lane from rank 0 to 1, operation 1: rank 0 launches send of",
                      "(micro 0, stage 3), rank 1 launches receive of", "(micro 0, stage 1)"});
}

TEST(LaunchFaults, AMessageOfAStageThatIsNotSentIsFound) {
  const std::string fault = fault_of(interleaved_grid, {1}, [](Launches& launches) {
    const size_t gone = find(launches, LaunchKind::send, LaunchWire::activation, 2);
    launches[gone] = {.kind = LaunchKind::wait, .awaited = -1};
    drop_waits(launches);
  });
  expect_says(fault, {"activation lane from rank 1 to 0, operation 3: rank 0 launches receive of",
                      "(micro 2, stage 2), rank 1 launches send of", "(micro 3, stage 2)"});
}

TEST(LaunchFaults, AForwardTooManyBeforeTheGradientsAreSentIsFound) {
  // Under zero bubble with two positions the first one sends micro-batch 2 when it has the gradient of 0.
  // Where the last one takes three forwards before it sends a gradient, both wait.
  const auto hurry = [](Launches& launches) {
    size_t send = find(launches, LaunchKind::send, LaunchWire::gradient);
    for (int n = 0; n < 4; ++n) {  // receives of micro-batches 1 and 2, and their waits
      size_t next = send + 1;
      while (launches[next].wire != LaunchWire::activation) ++next;
      move_launch(launches, next, send++);
    }
  };
  const LaunchGrid grid{.pipeline = 2, .schedule = ScheduleName::zero_bubble};
  expect_says(
      fault_of(grid, {1}, hurry),
      {"rank 0 waits in receive of", "on the gradient lane from position 1 (micro 0, stage 1) for rank 1",
       "rank 1 waits in receive of", "on the activation lane from position 0 (micro 2, stage 1) for rank 0"});
}

TEST(LaunchFaults, AWaitForWhatTheRankItselfLaunchesLaterIsFound) {
  const LaunchGrid grid{.pipeline = 2, .schedule = ScheduleName::zero_bubble, .micros = 1};
  expect_says(fault_of(grid, {1},
                       [](Launches& launches) {
                         move_launch(launches, find(launches, LaunchKind::send, LaunchWire::gradient),
                                     find(launches, LaunchKind::all_reduce, LaunchWire::world));
                       }),
              {"rank 1 waits for its own send of",
               "on the gradient lane to position 0 (micro 0, stage 1), "
               "which it launches only later"});
}

TEST(LaunchFaults, ParametersGatheredInAnotherOrderAreFound) {
  // ZeRO-3: one rank prefetches a unit later than the others; in between lies the sum of another unit.
  const LaunchGrid grid{.data = 2, .zero = 3, .micros = 1};
  const auto swap_gathers = [](Launches& launches) {
    const size_t first = find(launches, LaunchKind::all_gather, LaunchWire::data, 1),
                 second = find(launches, LaunchKind::all_gather, LaunchWire::data, 2);
    std::swap(launches[first].bucket, launches[second].bucket);
    std::swap(launches[first].bytes, launches[second].bytes);
  };
  expect_says(fault_of(grid, {1}, swap_gathers),
              {"data group of rank 0, operation 2: rank 0 launches all-gather of", "(bucket 8)",
               "rank 1 launches all-gather of", "(bucket 7)"});
  // A unit that one rank takes to be in its place still.
  expect_says(
      fault_of(grid, {0},
               [](Launches& launches) {
                 launches[find(launches, LaunchKind::all_gather, LaunchWire::data, 3)] = {
                     .kind = LaunchKind::wait, .awaited = -1};
                 drop_waits(launches);
               }),
      {"data group of rank 0, operation 4: rank 0 launches all-gather of", "rank 1 launches all-gather"});
}

TEST(LaunchFaults, AUnitsGatherBehindATensorGroupsCollectiveOnSomeRanksIsFound) {
  // Ranks 1 and 2 gather a unit's parameters only after the collective of the tensor group that the others
  // have behind it: a ring over both groups.
  const LaunchGrid grid{.tensor = 2, .data = 2, .zero = 3, .micros = 1};
  const std::string fault = fault_of(grid, {1, 2}, [](Launches& launches) {
    const size_t gather = find(launches, LaunchKind::all_gather, LaunchWire::data, 4);
    size_t next = gather + 1;
    while (launches[next].kind != LaunchKind::all_reduce || launches[next].wire != LaunchWire::tensor) ++next;
    move_launch(launches, gather, next + 1);
  });
  expect_says(fault, {"rank 0 waits in all-gather of", "on the data group", "for rank 2; rank 2 waits in",
                      "on the tensor group", "for rank 3"});
}

}  // namespace
}  // namespace ptrain
