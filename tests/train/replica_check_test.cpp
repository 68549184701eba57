// Replicas of weights: who is named by how many witnesses, and a flipped bit in a trainer's weights.
#include "src/train/replica_check.h"

#include <gtest/gtest.h>

#include "kernels/base/fault.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"
#include "tests/train/compared_replicas.h"

namespace ptrain {
namespace {

/// Ranks that each hold piece 0 of units 0, 1, … with these sums; 0: not that one.
std::optional<ReplicaFault> compared(const std::vector<std::vector<int64_t>>& sums) {
  std::vector<std::vector<ReplicaRecord>> ranks;
  for (const auto& own : sums) {
    auto& records = ranks.emplace_back();
    for (size_t unit = 0; unit < own.size(); ++unit) {
      const auto number = static_cast<int64_t>(unit);
      if (own[unit] != 0) records.push_back({.key = 1000 - number, .unit = number, .sum = own[unit]});
    }
  }
  return compare_replicas(ranks);
}

TEST(Replicas, TheMajorityNamesTheRankThatDiffers) {
  struct Case {
    std::vector<std::vector<int64_t>> sums;  // [rank][unit]
    int64_t unit, tensors;
    std::vector<int> suspects, others;
  };
  for (const Case& c : std::vector<Case>{
           {{{7}, {7}, {8}}, 0, 1, {2}, {0, 1}},
           {{{7}, {8}}, 0, 1, {0, 1}, {}},  // no witness
           {{{7, 5}, {7, 6}, {7, 5}, {7, 5}}, 1, 1, {1}, {0, 2, 3}},
           {{{7, 5}, {8, 6}, {7, 5}}, 0, 2, {1}, {0, 2}},  // two tensors, the first is named
           {{{7}, {7}, {8}, {8}}, 0, 1, {0, 1, 2, 3}, {}},
           {{{7}, {8}, {9}, {7}, {7}}, 0, 1, {1, 2}, {0, 3, 4}},
           {{{7, 0}, {0, 5}, {7, 0}, {0, 6}, {0, 6}}, 1, 1, {1}, {3, 4}},  // other ranks hold other tensors
       }) {
    const auto fault = compared(c.sums);
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->unit, c.unit);
    EXPECT_EQ(fault->tensors, c.tensors);
    EXPECT_EQ(fault->suspects, c.suspects);
    EXPECT_EQ(fault->others, c.others);
  }
  EXPECT_FALSE(compared({{7, 5}, {7, 5}, {7, 5}}));
  EXPECT_FALSE(compared({{7, 0}, {0, 5}})) << "nothing is held twice";
  EXPECT_FALSE(compared({}));
}

TEST(StepVote, IsTheSameOnAllRanksAndItsSumLosesNoCarry) {
  run_ranks(4, [&](Communicator& world) {
    const auto rank = static_cast<uint64_t>(world.rank());
    const auto sum = [&](uint64_t mine) { return over_ranks(world, {.imbalance = mine}).imbalance; };
    EXPECT_EQ(sum(0), 0u);
    const uint64_t odd = 0x9E3779B97F4A7C15;
    EXPECT_EQ(sum(rank == 2 ? 3 * odd : -odd), 0u);
    EXPECT_EQ(sum(rank == 2 ? 3 * odd + 1 : -odd), 1u);
    EXPECT_EQ(sum(~uint64_t{0}), -uint64_t{4});
    EXPECT_EQ(sum(uint64_t{1} << 63), 0u);

    const StepVote all = over_ranks(
        world,
        {.is_stop_wanted = rank == 3, .save = {.busy = rank < 2, .failed = rank == 1}, .imbalance = rank});
    EXPECT_TRUE(all.is_stop_wanted);
    EXPECT_FALSE(all.is_state_damaged);
    EXPECT_EQ(all.save.busy, 2);
    EXPECT_EQ(all.save.failed, 1);
    EXPECT_EQ(all.imbalance, 6u);
  });
}

TEST(Replicas, AreEqualOnEveryGridAndAFlippedBitIsFoundWithItsRank) {
  const CurveCase golden("llama-gqa-tied");
  struct Case {
    Grid grid;
    int flipped = 0;            // rank
    std::vector<int> suspects;  // none: that weight is held once
  };
  for (const Case& c : std::vector<Case>{
           {{.data = 3, .zero = 0}, 1, {1}},
           {{.data = 3, .zero = 1}, 2, {2}},
           {{.pipeline = 2, .data = 2, .zero = 2}, 3, {2, 3}},
           {{.tensor = 3, .is_sequence_parallel = true}, 1, {1}},
           {{.tensor = 2, .data = 2, .zero = 0}, 3, {3}},
           {{.pipeline = 2}, 1, {}},
           // Rank 0 has both ends of the tied table.
           {{.pipeline = 2, .schedule = ScheduleName::zero_bubble, .chunks = 2}, 1, {}},
           {{.pipeline = 2, .data = 2, .zero = 0, .schedule = ScheduleName::zero_bubble, .chunks = 2},
            3,
            {2, 3}},
           {{.data = 3, .zero = 3}, 1, {}},
       }) {
    run_ranks(c.grid.world(), [&](Communicator& world) {
      const Batches batches(
          *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
          {.micro = c.grid.micro, .global = golden.global, .data = c.grid.data}, {.shuffle = Shuffle::off});
      Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, c.grid), world, Context{});
      load_golden_weights(golden.weights, trainer);
      ReplicaCheck replicas(trainer, world);
      for (int64_t step = 1; step <= 2; ++step) {
        trainer.step(batches, step, golden.steps);
        EXPECT_FALSE(compared(replicas, world)) << to_string(c.grid);
      }
      // One bit of a norm, which every rank of a stage holds.
      for (size_t i = 0; i < trainer.model().placed().size() && world.rank() == c.flipped; ++i) {
        const PlacedWeight& weight = trainer.model().placed()[i];
        if (weight.spec.role != Role::norm_2) continue;
        const Range one{weight.offset + 3, 1};
        if (trainer.model().held_parameters() == Held::shards) continue;
        auto* bits = static_cast<uint32_t*>(trainer.model().owned_parameters().at(one).data);
        *bits ^= 1u << 9;
        break;
      }
      const auto fault = compared(replicas, world);
      EXPECT_EQ(fault.has_value(), !c.suspects.empty()) << to_string(c.grid);
      if (!fault) return;
      EXPECT_EQ(fault->suspects, c.suspects) << to_string(c.grid);
      const std::vector<std::string> hosts(static_cast<size_t>(c.grid.world()), "h");
      const std::string text = to_string(*fault, trainer.plan(), hosts);
      EXPECT_NE(text.find(".post_attention_layernorm.weight: rank"), std::string::npos) << text;
      EXPECT_NE(text.find(fmt::format("{} (host h)", c.flipped)), std::string::npos) << text;
    });
  }
}

/// One rank that updates its own copy goes on apart from the others: whenever one looks, it shows.
TEST(Replicas, AFlippedBitStaysWhereEveryRankUpdatesAll) {
  const CurveCase golden("llama-gqa-tied");
  const Grid grid{.data = 3, .zero = 0};
  fault::arm("flip@weight:step1:nth1", 0);  // the first rank that comes there
  run_ranks(grid.world(), [&](Communicator& world) {
    const Batches batches(
        *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
        {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
    Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid), world, Context{});
    load_golden_weights(golden.weights, trainer);
    trainer.step(batches, 1, golden.steps);
    trainer.flip_planted(1);
    for (int64_t step = 2; step <= 6; ++step) trainer.step(batches, step, golden.steps);
    ReplicaCheck replicas(trainer, world);
    const auto fault = compared(replicas, world);
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->suspects.size(), 1u);
    EXPECT_EQ(fault->others.size(), 2u);
  });
  fault::arm("", 0);
}

}  // namespace
}  // namespace ptrain
