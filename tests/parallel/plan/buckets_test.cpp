#include "parallel/plan/buckets.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

TEST(Buckets, FillFromTheLastUnitOn) {
  const std::vector<BucketUnit> units(5, {.elements = 10});
  EXPECT_EQ(cut_buckets(units, 0, 20), (std::vector<Range>{{3, 2}, {1, 2}, {0, 1}}));
  EXPECT_EQ(cut_buckets(units, 7, 1), (std::vector<Range>{{11, 1}, {10, 1}, {9, 1}, {8, 1}, {7, 1}}));
  EXPECT_EQ(cut_buckets(units, 0, 1000), (std::vector<Range>{{0, 5}}));
}

TEST(Buckets, ATiedEmbeddingIsAlone) {
  std::vector<BucketUnit> units(4, {.elements = 10});
  units.front().is_alone = units.back().is_alone = true;
  EXPECT_EQ(cut_buckets(units, 0, 1000), (std::vector<Range>{{3, 1}, {1, 2}, {0, 1}}));
}

TEST(Buckets, CoverEveryUnitOnceInBackwardOrderAndAreNoLargerThanNeeded) {
  Cases cases(9);
  for (int i = 0; i < 3000; ++i) {
    std::vector<BucketUnit> units;
    for (int64_t unit = cases.between(1, 20); unit > 0; --unit) {
      units.push_back({.elements = cases.between(0, 50), .is_alone = cases.between(0, 5) == 0});
    }
    const int64_t first = cases.between(0, 9), target = cases.between(1, 120);
    int64_t end = first + static_cast<int64_t>(units.size());
    for (Range bucket : cut_buckets(units, first, target)) {
      ASSERT_EQ(bucket.end(), end);
      end = bucket.begin;
      int64_t behind_first = 0;  // without the unit that closed it
      for (int64_t unit = bucket.begin; unit < bucket.end(); ++unit) {
        const BucketUnit& what = units[static_cast<size_t>(unit - first)];
        if (unit > bucket.begin) behind_first += what.elements;
        EXPECT_TRUE(!what.is_alone || bucket.count == 1);
      }
      EXPECT_TRUE(bucket.count == 1 || behind_first < target);
    }
    EXPECT_EQ(end, first);
  }
}

TEST(Buckets, ATargetOfNothingIsADefect) {
  EXPECT_THROW(cut_buckets({{.elements = 1}}, 0, 0), Error);
}

}  // namespace
}  // namespace ptrain
