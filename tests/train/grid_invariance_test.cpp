// train.deterministic: grid. The same bits for every pipeline and data split, schedule, recompute and ZeRO.
#include <gtest/gtest.h>

#include <set>

#include "src/io/json.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

constexpr int64_t steps = 3;

struct Numbers {
  std::vector<double> losses, norms;
  bool operator==(const Numbers&) const = default;
};

Numbers trained(const CurveCase& golden, const Grid& grid, int threads = 1,
                Config::Precision precision = Config::Precision::fp32) {
  Numbers numbers;
  run_ranks(grid.world(), [&](Communicator& world) {
    Context context;
    context.threads = threads;
    const auto results = train_on(golden, grid, world, steps, context, precision);
    if (world.rank() != 0) return;
    for (const StepResult& result : results) {
      numbers.losses.push_back(result.loss);
      numbers.norms.push_back(result.grad_norm);
    }
  });
  return numbers;
}

/// Everything that must not show, without a tensor split.
std::vector<Grid> grids_without_tensor(const CurveCase& golden) {
  std::vector<Grid> grids;
  for (int world : {1, 2, 3, 4, 6, 8}) {
    for (Grid grid : all_grids(golden, world)) {
      grid.is_grid_invariant = true;
      if (grid.tensor == 1 && grid.micro == 1 && plan_on(golden, grid)) grids.push_back(grid);
    }
  }
  return grids;
}

class GridInvariance : public testing::TestWithParam<const char*> {};

TEST_P(GridInvariance, GivesTheBitsOfOneRankOnEveryPipelineAndDataSplit) {
  const CurveCase golden(GetParam());
  const Grid alone{.is_grid_invariant = true};
  const Numbers want = trained(golden, alone);
  for (size_t i = 0; i < want.losses.size(); ++i) {
    const Json& step = golden.curve["curve"][i];
    const double loss = step["loss"].get<double>(), norm = step["grad_norm"].get<double>();
    EXPECT_NEAR(want.losses[i], loss, tolerance::golden_loss * loss);
    EXPECT_NEAR(want.norms[i], norm, tolerance::golden_grad_norm * norm);
  }
  const std::vector<Grid> grids = sample_of(grids_without_tensor(golden), 5);
  std::set<std::pair<int, int>> splits;
  for (const Grid& grid : grids) {
    splits.insert({grid.pipeline, grid.data});
    EXPECT_EQ(trained(golden, grid), want) << to_string(grid);
  }
  EXPECT_GE(splits.size(), 6u);
}

INSTANTIATE_TEST_SUITE_P(Golden, GridInvariance, testing::Values("llama-gqa-tied", "llama-bias"));

TEST(GridInvariance, ThreadsDoNotShowAndSixteenBitsNeither) {
  const CurveCase golden("llama-gqa-tied");
  const Grid alone{.is_grid_invariant = true}, split{.pipeline = 2, .data = 3, .is_grid_invariant = true};
  EXPECT_EQ(trained(golden, alone, 3), trained(golden, split, 1));
  EXPECT_EQ(trained(golden, alone, 2, Config::Precision::bf16),
            trained(golden, split, 1, Config::Precision::bf16));
}

TEST(GridInvariance, ATensorSplitStaysOnTheCurve) {
  const CurveCase golden("llama-gqa-tied");
  const Numbers alone = trained(golden, {.is_grid_invariant = true});
  const Numbers cut =
      trained(golden, {.tensor = 2, .pipeline = 2, .is_sequence_parallel = true, .is_grid_invariant = true});
  for (size_t i = 0; i < alone.losses.size(); ++i) {
    EXPECT_NEAR(cut.losses[i], alone.losses[i], tolerance::golden_loss * alone.losses[i]);
    EXPECT_NEAR(cut.norms[i], alone.norms[i], tolerance::golden_grad_norm * alone.norms[i]);
  }
}

TEST(GridInvariance, WithoutItSplitsDoShow) {
  // Else the tests above would say nothing.
  const CurveCase golden("llama-gqa-tied");
  EXPECT_NE(trained(golden, {}), trained(golden, {.pipeline = 2, .data = 3}));
}

}  // namespace
}  // namespace ptrain
