#include "src/data/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

TEST(Order, IsAPermutationForEveryCountSeedAndEpoch) {
  for (const int64_t count : {0, 1, 2, 3, 7, 64, 1001}) {
    for (const uint64_t seed : {0u, 1u, 77u}) {
      for (const int64_t epoch : {0, 1, 5}) {
        auto order = sample_order(count, seed, epoch, Shuffle::on);
        std::sort(order.begin(), order.end());
        std::vector<uint32_t> all(static_cast<size_t>(count));
        std::iota(all.begin(), all.end(), 0u);
        EXPECT_EQ(order, all) << count << " " << seed << " " << epoch;
      }
    }
  }
}

TEST(Order, IsThatOfTheFileWithoutShuffling) {
  EXPECT_EQ(sample_order(4, 9, 3, Shuffle::off), (std::vector<uint32_t>{0, 1, 2, 3}));
}

TEST(Order, DependsOnSeedAndEpochAndNothingElse) {
  const auto order = sample_order(100, 1, 0, Shuffle::on);
  EXPECT_EQ(order, sample_order(100, 1, 0, Shuffle::on));
  EXPECT_NE(order, sample_order(100, 2, 0, Shuffle::on));
  EXPECT_NE(order, sample_order(100, 1, 1, Shuffle::on));
  EXPECT_NE(sample_order(100, 2, 0, Shuffle::on), sample_order(100, 1, 1, Shuffle::on));
}

// A run that is resumed years later must see the same order: these numbers are part of the contract.
TEST(Order, StaysWhatItWas) {
  EXPECT_EQ(sample_order(8, 1, 0, Shuffle::on), (std::vector<uint32_t>{4, 0, 2, 7, 5, 6, 3, 1}));
}

TEST(Order, EverySampleMayComeFirst) {
  std::vector<int> first(5);
  for (int64_t epoch = 0; epoch < 1000; ++epoch) ++first[sample_order(5, 3, epoch, Shuffle::on)[0]];
  for (const int times : first) EXPECT_NEAR(times, 200, 5 * 13) << "five standard deviations of 1000 draws";
}

TEST(Order, RefusesMoreSamplesThanItCanNumber) {
  EXPECT_THROW(sample_order(int64_t{1} << 33, 1, 0, Shuffle::on), Error);
}

}  // namespace
}  // namespace ptrain
