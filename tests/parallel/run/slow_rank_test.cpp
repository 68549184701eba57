#include "parallel/run/slow_rank.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <random>

namespace ptrain {
namespace {

using Seconds = std::function<double(int rank, int64_t step, std::mt19937_64& random)>;

/// What is named in `steps` steps of a job of `ranks` ranks, `stages` stages side by side.
std::vector<SlowRank> named(int ranks, int stages, int64_t steps, uint64_t seed, const Seconds& seconds) {
  std::mt19937_64 random(seed);
  std::vector<StepTimes> times(static_cast<size_t>(ranks));
  std::vector<RankTime> told(static_cast<size_t>(ranks));
  SlowRanks slow;
  std::vector<SlowRank> all;
  for (int64_t step = 1; step <= steps; ++step) {
    for (int rank = 0; rank < ranks; ++rank) {
      const auto r = static_cast<size_t>(rank);
      times[r].add(seconds(rank, step, random));
      told[r].steps = times[r].steps();
      if (told[r].steps % slow_rank_window == 0) told[r].median_s = times[r].median_s();
      told[r].stage = rank * stages / ranks;
      // The chief hears of ranks at any time, not only when all have done a step.
      const auto found = slow.observe(told);
      all.insert(all.end(), found.begin(), found.end());
    }
  }
  return all;
}

/// A fifth of noise, one step in twenty ten times as long, and all ranks slower now and then.
double noisy(double base_s, int64_t step, std::mt19937_64& random) {
  std::lognormal_distribution<double> noise(0, 0.2);
  const double spike = random() % 20 == 0 ? 10 : 1;
  const double weather = step / 300 % 2 == 1 ? 1.4 : 1;
  return base_s * noise(random) * spike * weather;
}

TEST(SlowRank, NobodyIsNamedIn2000CleanStepsOfNoise) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_TRUE(named(8, 2, 2000, seed,
                      [](int, int64_t step, std::mt19937_64& random) { return noisy(0.1, step, random); })
                    .empty())
        << seed;
  }
}

TEST(SlowRank, ARankTwiceAsSlowIsNamedOnce) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto found = named(8, 2, 2000, seed, [](int rank, int64_t step, std::mt19937_64& random) {
      return noisy(rank == 5 && step > 100 ? 0.2 : 0.1, step, random);
    });
    ASSERT_EQ(found.size(), 1u) << seed;
    EXPECT_EQ(found[0].rank, 5);
    EXPECT_NEAR(found[0].factor, 2, 0.5);
    EXPECT_NEAR(found[0].median_s / found[0].peers_s, found[0].factor, 1e-9);
  }
}

TEST(SlowRank, OfTwoPeersTheSlowerIsNamed) {
  const auto found = named(4, 2, 200, 1, [](int rank, int64_t step, std::mt19937_64& random) {
    return noisy(rank == 2 ? 0.2 : 0.1, step, random);
  });
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 2);
}

TEST(SlowRank, AStageThatHasMoreToDoIsNotSlow) {
  EXPECT_TRUE(named(4, 2, 200, 1, [](int rank, int64_t step, std::mt19937_64& random) {
                return noisy(rank >= 2 ? 0.3 : 0.1, step, random);
              }).empty());
}

TEST(SlowRank, UnevenCutsAreNotSlowness) {
  // 7 heads in 3 parts: 2, 2, 3.
  std::vector<RankTime> told(3);
  SlowRanks slow;
  for (int64_t steps = 20; steps <= 200; steps += 20) {
    for (size_t rank = 0; rank < 3; ++rank)
      told[rank] = {.steps = steps, .median_s = rank == 2 ? 0.3 : 0.2, .weight = rank == 2 ? 3.0 : 2.0};
    EXPECT_TRUE(slow.observe(told).empty());
  }
}

TEST(SlowRank, OneBadWindowIsForgiven) {
  EXPECT_TRUE(named(4, 1, 400, 1, [](int rank, int64_t step, std::mt19937_64&) {
                return rank == 1 && step > 100 && step <= 120 ? 0.5 : 0.1;
              }).empty());
}

TEST(SlowRank, WhatIsNotKnownOrHasNoPeerSaysNothing) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(named(4, 1, 400, 1, [&](int rank, int64_t, std::mt19937_64&) {
                return rank == 1 ? 0.5 : nan;
              }).empty());
  EXPECT_TRUE(
      named(3, 3, 400, 1, [](int rank, int64_t, std::mt19937_64&) { return rank == 1 ? 0.5 : 0.1; }).empty());
  EXPECT_TRUE(SlowRanks().observe({}).empty());
}

}  // namespace
}  // namespace ptrain
