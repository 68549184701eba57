#include "parallel/comm/clock.h"

#include <chrono>
#include <cmath>
#include <thread>

#include "kernels/base/error.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// Rank r's clock is ahead of what all read by this much; days apart and of both signs, as after boots.
double planted_s(int rank) {
  return rank * 86'400.25 * (rank % 2 == 0 ? 1 : -1);
}

/// What f64 loses of a sum with planted_s: its unit in the last place at 2^20 s, a few times.
constexpr double rounding_s = 1e-9;

RankClock planted_clock(int rank, const std::string& name) {
  return {.name = name, .now_s = [rank, real = host_clock().now_s] { return real() + planted_s(rank); }};
}

TEST(Clock, TheQuickestRoundSaysTheOffsetAndHalfItsLengthBoundsTheError) {
  const std::vector<ClockRound> rounds = {{10, 107, 18}, {20, 113, 24}, {30, 129.5, 36}};
  EXPECT_EQ(offset_of(rounds).offset_s, -91);
  EXPECT_EQ(offset_of(rounds).error_s, 2);
  EXPECT_THROW(offset_of({}), Error);
}

TEST(Clock, APlantedOffsetIsFoundWithinTheBound) {
  for (const int ranks : world_sizes({1, 2, 3, 6})) {
    run_ranks(ranks, [&](Communicator& world) {
      // All ranks of a test run on one host, so what was planted is the truth.
      const std::string name = fmt::format("clock {}", world.rank());
      const ClockOffset found = clock_offset(world, planted_clock(world.rank(), name), 4);
      EXPECT_LE(std::abs(found.offset_s + planted_s(world.rank())), found.error_s + rounding_s);
      EXPECT_EQ(found.error_s > 0, world.rank() > 0);
    });
  }
}

TEST(Clock, ASlowAnswerWidensTheBoundAndStaysInsideIt) {
  run_ranks(2, [&](Communicator& world) {
    RankClock clock = planted_clock(world.rank(), "");  // nameless: like no other
    if (world.rank() == 1) {
      clock.now_s = [now_s = clock.now_s] {
        const double read_s = now_s();
        std::this_thread::sleep_for(
            std::chrono::milliseconds(5));  // the answer leaves late: a one-sided delay
        return read_s;
      };
    }
    const ClockOffset found = clock_offset(world, clock, 2);
    EXPECT_LE(std::abs(found.offset_s + planted_s(world.rank())), found.error_s + rounding_s);
    if (world.rank() == 1) {
      EXPECT_GE(found.error_s, 0.0025);  // a sleep is never shorter than asked for
    }
  });
}

TEST(Clock, RanksOfOneClockAreAskedOnceAndSayTheSame) {
  for (const int ranks : world_sizes({4, 6})) {
    run_ranks(ranks, [&](Communicator& world) {
      // Ranks 0 and 1 read one clock, 2 and on another, as on two hosts.
      const int host = world.rank() / 2 == 0 ? 0 : 1;
      int64_t readings = 0;
      RankClock clock = planted_clock(host, fmt::format("host {}", host));
      clock.now_s = [&readings, now_s = clock.now_s] {
        ++readings;
        return now_s();
      };
      const ClockOffset found = clock_offset(world, clock, 3);
      std::vector<double> all(2 * static_cast<size_t>(world.size()));
      double mine[] = {found.offset_s, found.error_s};
      world.all_gather(Tensor(mine, {2}, DType::f64), Tensor(all.data(), {std::ssize(all)}, DType::f64));
      for (size_t rank = 0; rank < static_cast<size_t>(world.size()); ++rank) {
        const size_t same_as = rank < 2 ? 0 : 2;
        EXPECT_EQ(all[2 * rank], all[2 * same_as]) << rank;
        EXPECT_EQ(all[2 * rank + 1], all[2 * same_as + 1]) << rank;
      }
      EXPECT_EQ(all[0], 0);
      EXPECT_EQ(all[1], 0);
      const bool has_other = world.size() > 2;
      EXPECT_EQ(readings, !has_other ? 0 : world.rank() == 0 ? 6 : world.rank() == 2 ? 3 : 0);
    });
  }
}

TEST(Clock, TheHostsOwnGoesForwardAndHasAName) {
  const RankClock clock = host_clock();
  EXPECT_NE(clock.name, "");
  EXPECT_EQ(clock.name, host_clock().name);
  const double before_s = clock.now_s();
  EXPECT_GE(clock.now_s(), before_s);
}

TEST(Clock, RanksOfThisHostHaveNoOffset) {
  for (const int ranks : world_sizes({3})) {
    run_ranks(ranks, [](Communicator& world) {
      const ClockOffset found = clock_offset(world, host_clock());
      EXPECT_EQ(found.offset_s, 0);
      EXPECT_EQ(found.error_s, 0);
    });
  }
}

}  // namespace
}  // namespace ptrain
