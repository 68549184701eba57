#include "src/train/spike_watch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/base/rng.h"

namespace ptrain {
namespace {

/// Places, from 0, at which the watch speaks.
std::vector<size_t> spikes_of(const std::vector<double>& values, double threshold = 10,
                              double smallest = 0.01) {
  SpikeWatch watch(threshold, smallest);
  std::vector<size_t> found;
  for (size_t i = 0; i < values.size(); ++i)
    if (watch.look(values[i])) found.push_back(i);
  return found;
}

/// A loss that falls from `from` to `to` over `steps` steps, with noise of a normal distribution.
std::vector<double> falling_loss(double from, double to, double noise, size_t steps, uint64_t seed) {
  std::vector<double> losses(steps);
  for (size_t i = 0; i < steps; ++i)
    losses[i] = to + (from - to) * std::exp(-6.0 * static_cast<double>(i) / static_cast<double>(steps)) +
                noise * Rng(seed, 1).normal(i);
  return losses;
}

using Places = std::vector<size_t>;

TEST(SpikeWatch, TellsAJumpOnceAndNothingElse) {
  std::vector<double> losses = falling_loss(10, 2, 0.05, 2000, 1);
  EXPECT_EQ(spikes_of(losses), Places{});
  losses[1000] += 1.5;
  EXPECT_EQ(spikes_of(losses), Places{1000});
  for (size_t i = 1001; i < 1020; ++i) losses[i] += 1.5;  // it lasts: still one
  EXPECT_EQ(spikes_of(losses), Places{1000});
  losses[1500] += 1.5;  // another
  EXPECT_EQ(spikes_of(losses), (Places{1000, 1500}));
  EXPECT_EQ(spikes_of(losses, 0), Places{}) << "switched off";
}

TEST(SpikeWatch, ANewLevelBecomesTheUsualOne) {
  std::vector<double> losses = falling_loss(4, 2, 0.05, 1000, 2);
  for (size_t i = 300; i < losses.size(); ++i) losses[i] += 3;
  losses[700] += 3;
  EXPECT_EQ(spikes_of(losses), (Places{300, 700}));
}

TEST(SpikeWatch, HasNoFalseAlarmInCleanRunsOfManyKinds) {
  size_t alarms = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const double noise : {0.002, 0.05, 0.4}) {  // large and small batches
      alarms += spikes_of(falling_loss(11, 2.5, noise, 2000, seed)).size();
      alarms += spikes_of(falling_loss(2, 0.001, noise * 0.01, 2000, seed)).size();  // learned by heart
    }
    // Gradient norms, by their logarithm: long tails.
    std::vector<double> norms(2000);
    for (size_t i = 0; i < norms.size(); ++i) norms[i] = 0.5 * Rng(seed, 2).normal(i);
    alarms += spikes_of(norms, 10, 0.1).size();
  }
  EXPECT_EQ(alarms, 0u);
}

TEST(SpikeWatch, SaysByHowMuch) {
  SpikeWatch watch(10, 0.01);
  for (size_t i = 0; i < SpikeWatch::enough; ++i) EXPECT_FALSE(watch.look(i % 2 == 0 ? 1.9 : 2.1));
  const auto spike = watch.look(6);
  ASSERT_TRUE(spike);
  EXPECT_EQ(spike->value, 6);
  EXPECT_NEAR(spike->median, 2.1, 1e-12);
  EXPECT_EQ(spike->window, 16);
  EXPECT_GE(spike->score, 10);
}

}  // namespace
}  // namespace ptrain
