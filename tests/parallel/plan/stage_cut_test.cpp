#include "parallel/plan/stage_cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "kernels/base/error.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

std::vector<UnitKind> kinds_of(int blocks) {
  std::vector<UnitKind> kinds(static_cast<size_t>(blocks + 2), UnitKind::block);
  kinds.front() = UnitKind::embedding;
  kinds.back() = UnitKind::head;
  return kinds;
}

std::vector<int64_t> counts_of(const std::vector<Range>& ranges) {
  std::vector<int64_t> counts;
  for (Range range : ranges) counts.push_back(range.count);
  return counts;
}

TEST(StageCut, EqualBlocksAreSpreadAndEarlierStagesAreEmptier) {
  std::vector<double> costs(9, 1.0);
  costs.front() = costs.back() = 0;
  // Counts hold the embedding on the first and the head on the last stage.
  EXPECT_EQ(counts_of(cut_stages(costs, kinds_of(7), 3)), (std::vector<int64_t>{3, 2, 4}));
  EXPECT_EQ(counts_of(cut_stages(costs, kinds_of(7), 1)), (std::vector<int64_t>{9}));
  EXPECT_EQ(counts_of(cut_stages(costs, kinds_of(7), 7)), (std::vector<int64_t>{2, 1, 1, 1, 1, 1, 2}));
}

TEST(StageCut, AHeavyHeadTakesBlocksAwayFromTheLastStage) {
  std::vector<double> costs(10, 1.0);
  costs.front() = 0;
  costs.back() = 2;
  // 8 blocks, the head as heavy as two: 5 blocks | 3 blocks + head.
  EXPECT_EQ(cut_stages(costs, kinds_of(8), 2), (std::vector<Range>{{0, 6}, {6, 4}}));
}

TEST(StageCut, MoreStagesThanBlocksAreRefusedWithTheNumbers) {
  try {
    cut_stages(std::vector<double>(6, 1.0), kinds_of(4), 5);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("5 stages, but the model has 4 blocks"), std::string::npos)
        << error.what();
  }
}

/// The least slowest stage and, below it, the least sum of squares, by trying every cut.
std::pair<double, double> best_by_trial(const std::vector<double>& costs, int stages) {
  const int L = static_cast<int>(costs.size()) - 2;
  std::pair<double, double> best{1e300, 1e300};
  std::function<void(int, int, double, double)> go = [&](int stage, int begin, double slowest,
                                                         double squares) {
    if (stage == stages) {
      if (begin == L) best = std::min(best, {slowest, squares});
      return;
    }
    double cost = (stage == 0 ? costs.front() : 0) + (stage + 1 == stages ? costs.back() : 0);
    for (int end = begin + 1; end <= L; ++end) {
      cost += costs[static_cast<size_t>(end)];
      go(stage + 1, end, std::max(slowest, cost), squares + cost * cost);
    }
  };
  go(0, 0, 0, 0);
  return best;
}

TEST(StageCut, NoOtherCutIsBetter) {
  Cases cases(8);
  for (int i = 0; i < 1500; ++i) {
    const int blocks = static_cast<int>(cases.between(1, 9));
    const int stages = static_cast<int>(cases.between(1, blocks));
    std::vector<double> costs;
    for (int unit = 0; unit < blocks + 2; ++unit) costs.push_back(static_cast<double>(cases.between(0, 6)));
    const std::vector<Range> ranges = cut_stages(costs, kinds_of(blocks), stages);
    ASSERT_EQ(static_cast<int>(ranges.size()), stages);
    int64_t end = 0;
    double slowest = 0, squares = 0;
    for (Range range : ranges) {
      EXPECT_EQ(range.begin, end);
      end = range.end();
      double cost = 0;
      int64_t held = 0;
      for (int64_t unit = range.begin; unit < range.end(); ++unit) {
        cost += costs[static_cast<size_t>(unit)];
        held += unit > 0 && unit <= blocks;
      }
      EXPECT_GE(held, 1);
      slowest = std::max(slowest, cost);
      squares += cost * cost;
    }
    EXPECT_EQ(end, blocks + 2);
    // Costs are scaled to integers inside, so equal to their resolution.
    const auto [best_slowest, best_squares] = best_by_trial(costs, stages);
    EXPECT_NEAR(slowest, best_slowest, 1e-6);
    EXPECT_NEAR(squares, best_squares, 1e-4);
  }
}

TEST(StageCut, ABigModelIsCutAtOnce) {
  std::vector<double> costs(1026, 1.0);
  const std::vector<Range> ranges = cut_stages(costs, kinds_of(1024), 128);
  for (Range range : ranges) EXPECT_TRUE(range.count >= 7 && range.count <= 9);
}

}  // namespace
}  // namespace ptrain
