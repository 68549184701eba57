// Steps that are not finite: all ranks see it alike, nothing changes, and the place is found.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/base/fault.h"
#include "src/train/judge.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

const std::vector<Grid> grids = {
    {.pipeline = 2, .data = 2},
    {.data = 3, .zero = 0},
    {.data = 2, .zero = 2},
    {.tensor = 2, .data = 2, .is_sequence_parallel = true, .zero = 3},
    {.data = 3, .is_grid_invariant = true},
    {.pipeline = 2, .schedule = ScheduleName::zero_bubble, .chunks = 2},
};

/// Faults of this process until the end of the scope.
struct Armed {
  explicit Armed(std::string_view spec) { fault::arm(spec, 0); }
  ~Armed() { fault::arm("", 0); }
};

Plan plan_of(const CurveCase& golden, const Grid& grid) {
  const std::optional<Plan> plan = plan_on(golden, grid);
  check(plan.has_value(), "{} does not fit", to_string(grid));
  return *plan;
}

struct Rank {
  Rank(const CurveCase& golden, const Grid& grid, Communicator& world)
      : batches(*golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
                {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off}),
        trainer(golden.spec, golden.optimizer, plan_of(golden, grid), world, Context{}),
        steps(golden.steps) {
    load_golden_weights(golden.weights, trainer);
  }
  StepResult step(int64_t number) { return trainer.step(batches, number, steps); }
  std::vector<char> state() {
    HostState host(trainer);
    host.get();
    std::vector<char> bytes;
    for (const Tensor& tensor : {trainer.model().parameters(), host.m(), host.v()}) {
      const auto* begin = static_cast<const char*>(tensor.data);
      bytes.insert(bytes.end(), begin, begin + tensor.numel() * size_bytes(tensor.dtype));
    }
    return bytes;
  }
  /// Every element of this rank's replica of a weight.
  void scale(std::string_view name, float factor) {
    trainer.finish_exchange();
    for (const PlacedWeight& weight : trainer.model().placed()) {
      if (weight.spec.piece.name.find(name) == std::string::npos) continue;
      const Tensor values = trainer.model().owned_parameters().at({weight.offset, weight.box.numel()});
      for (float& value : values.span<float>()) value *= factor;
    }
  }

  Batches batches;
  Trainer trainer;
  int64_t steps;
};

TEST(NotFinite, OneRanksGradientMakesAllRanksLeaveTheStepOut) {
  const CurveCase golden("llama-gqa-tied");
  for (const Grid& grid : grids) {
    for (const char* action : {"nan", "inf", "huge"}) {
      // The first rank that comes there: one, whichever. When the step is computed again none is.
      const Armed armed(fmt::format("{}@gradient:step2:nth1", action));
      run_ranks(grid.world(), [&](Communicator& world) {
        Rank rank(golden, grid, world);
        EXPECT_EQ(rank.step(1).outcome, Outcome::updated);
        const std::vector<char> before = rank.state();
        const StepResult bad = rank.step(2);
        EXPECT_EQ(bad.outcome, Outcome::not_finite) << to_string(grid) << " " << action;
        EXPECT_TRUE(std::isfinite(bad.loss)) << "planted behind the loss";
        EXPECT_TRUE(rank.state() == before) << to_string(grid) << " " << action;
        EXPECT_EQ(rank.trainer.updates(), 1);
        EXPECT_EQ(rank.trainer.find_fault(bad).what, FaultSite::What::nothing) << to_string(grid);
        EXPECT_TRUE(rank.state() == before) << "looking changes nothing";
        EXPECT_TRUE(rank.trainer.holds_finite_state());
        EXPECT_EQ(rank.step(3).outcome, Outcome::updated);
      });
    }
  }
}

TEST(NotFinite, AGradientIsNamedByItsTensorRankAndPlace) {
  const CurveCase golden("llama-gqa-tied");
  for (const Grid& grid : grids) {
    const Armed armed("nan@gradient:step1");  // on every rank
    run_ranks(grid.world(), [&](Communicator& world) {
      Rank rank(golden, grid, world);
      const FaultSite site = rank.trainer.find_fault(rank.step(1));
      EXPECT_EQ(site.what, FaultSite::What::gradient) << to_string(grid);
      // Planted into the first bucket that is whole on each: the head's end is nearest to the loss.
      const int last_stage = rank.trainer.plan().mesh.pipeline - 1;
      const bool is_v = grid.chunks == 2;  // the last layers are on the first position
      EXPECT_EQ(rank.trainer.plan().mesh.coordinate_of(site.rank).pipeline, is_v ? 0 : last_stage)
          << to_string(grid);
      EXPECT_EQ(site.data, 0);
      EXPECT_NE(site.tensor, "");
    });
  }
}

TEST(NotFinite, ALossIsNamedByTheReplicaThatMadeIt) {
  const CurveCase golden("llama-gqa-tied");
  for (const Grid& grid : {Grid{.pipeline = 2, .data = 2}, Grid{.data = 3, .zero = 0},
                           Grid{.data = 2, .zero = 2}, Grid{.data = 3, .is_grid_invariant = true}}) {
    run_ranks(grid.world(), [&](Communicator& world) {
      Rank rank(golden, grid, world);
      const int culprit = grid.data - 1;
      const StepResult good = rank.step(1);
      // Finite weights whose products leave f32, in one replica.
      if (rank.trainer.coordinate().data == culprit) rank.scale("layers.1.mlp", 1e16f);
      const FaultSite site = rank.trainer.find_fault(good);
      EXPECT_EQ(site.what, FaultSite::What::loss) << to_string(grid);
      EXPECT_EQ(site.data, culprit) << to_string(grid);
      EXPECT_EQ(site.micro, 0);
      const StepResult bad = rank.step(2);
      EXPECT_EQ(bad.outcome, Outcome::not_finite) << to_string(grid);
      EXPECT_FALSE(std::isfinite(bad.loss)) << to_string(grid);
    });
  }
}

TEST(NotFinite, DamagedWeightsAndMomentsAreNamedAndNotSaved) {
  const CurveCase golden("llama-gqa-tied");
  const Grid grid{.pipeline = 2, .data = 2};
  run_ranks(grid.world(), [&](Communicator& world) {
    Rank rank(golden, grid, world);
    rank.step(1);
    const StepResult none{.step = 1};
    EXPECT_EQ(rank.trainer.find_fault(none).what, FaultSite::What::nothing);
    EXPECT_TRUE(rank.trainer.holds_finite_state());
    const float infinity = std::numeric_limits<float>::infinity();
    if (world.rank() == 3) rank.trainer.optimizer().v().as<float>()[5] = infinity;
    EXPECT_EQ(rank.trainer.holds_finite_state(), world.rank() != 3);
    EXPECT_EQ(rank.trainer.find_fault(none).what, FaultSite::What::second_moment);
    EXPECT_EQ(rank.trainer.find_fault(none).rank, 3);
    if (world.rank() == 1) rank.scale("layers.0.mlp.down_proj", infinity);
    EXPECT_EQ(rank.trainer.holds_finite_state(), world.rank() % 2 == 0);
    const FaultSite site = rank.trainer.find_fault(none);
    EXPECT_EQ(site.what, FaultSite::What::weight);
    EXPECT_EQ(site.rank, 1);
    EXPECT_EQ(site.tensor, "model.layers.0.mlp.down_proj.weight");
  });
}

}  // namespace
}  // namespace ptrain
