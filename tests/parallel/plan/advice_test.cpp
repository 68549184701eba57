#include "parallel/plan/advice.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/plan/print_estimate.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

const ToySizes sizes{.V = 2000, .C = 256, .L = 8, .H = 8, .K = 8, .D = 32, .F = 704};

Plan make(const ParallelConfig& parallel) {
  return make_plan(toy_workload(sizes), parallel, parallel.tensor * parallel.pipeline * parallel.data);
}

ParallelConfig from() {
  return {.data = 8, .zero = 0, .micro = 4, .global = 32, .sequence_length = 512};
}

/// A machine of nodes of eight where a plan that holds that much fits just so.
Hardware room_for(double bytes) {
  Hardware hardware = hardware_of("a100-40");
  hardware.reserved_bytes = 0;
  hardware.memory_bytes = static_cast<int64_t>(bytes);
  return hardware;
}

TEST(Advice, OptionsAreTheKeysAsAUserWritesThem) {
  ParallelConfig to = from();
  EXPECT_TRUE(options_between(from(), to).empty());
  to.tensor = 2;
  to.pipeline = 2;
  to.data = 2;
  to.schedule = ScheduleName::zero_bubble;
  to.virtual_stages = 2;
  to.zero = 3;
  to.offload = Offload::optimizer;
  to.micro = 1;
  to.recompute = Recompute::full;
  const std::vector<std::string> expected = {"--parallel.tensor 2",
                                             "--parallel.pipeline 2",
                                             "--parallel.data 2",
                                             "--parallel.schedule zero_bubble",
                                             "--parallel.virtual_stages 2",
                                             "--parallel.zero 3",
                                             "--parallel.offload optimizer",
                                             "--batch.micro 1",
                                             "--train.recompute full"};
  EXPECT_EQ(options_between(from(), to), expected);
  to = from();
  to.recompute = Recompute::full;
  to.recompute_blocks = 3;
  EXPECT_EQ(options_between(from(), to), std::vector<std::string>{"--train.recompute auto"});
}

TEST(Advice, GridsAreThoseThatCutTheWorldEvenly) {
  const Workload workload = toy_workload(sizes);
  std::vector<std::string> grids;
  for (const ParallelConfig& grid : grids_of(from(), 8, workload, hardware_of("a100-40"))) {
    EXPECT_EQ(grid.tensor * grid.pipeline * grid.data, 8);
    EXPECT_EQ(grid.global % (grid.micro * grid.data), 0);
    grids.push_back(fmt::format("{} {} {}", grid.tensor, grid.pipeline, grid.data));
  }
  const std::vector<std::string> expected = {"1 1 8", "1 2 4", "1 4 2", "1 8 1", "2 1 4",
                                             "2 2 2", "2 4 1", "4 1 2", "4 2 1", "8 1 1"};
  EXPECT_EQ(grids, expected);
  // A node of two GPUs holds no tensor group of four.
  Hardware small = hardware_of("a100-40");
  small.ranks_per_node = 2;
  for (const ParallelConfig& grid : grids_of(from(), 8, workload, small)) EXPECT_LE(grid.tensor, 2);
}

TEST(Advice, EveryProposedChangeFitsAndComesWithItsTime) {
  const Plan plan = make(from());
  const double bytes = estimate_of(plan, hardware_of("a100-40")).most_bytes;
  for (const double share : {0.99, 0.7, 0.5, 0.3}) {
    const Hardware hardware = room_for(share * bytes);
    const Advice advice = advise(plan, make, hardware);
    ASSERT_FALSE(advice.changes.empty()) << share;
    EXPECT_LE(advice.changes.size(), 3u);
    EXPECT_EQ(advice.ranks, 0);
    double before_s = 0;
    for (const Change& change : advice.changes) {
      const Estimate estimate = estimate_of(make(change.judged.parallel), hardware);
      EXPECT_TRUE(estimate.does_fit);
      EXPECT_DOUBLE_EQ(change.judged.step_s, estimate.step_s);
      EXPECT_EQ(change.options, options_between(from(), change.judged.parallel));
      EXPECT_FALSE(change.options.empty());
      EXPECT_GE(change.judged.step_s, before_s) << "the cheapest first";
      before_s = change.judged.step_s;
    }
  }
}

TEST(Advice, NoSingleChangeThatFitsIsCheaperThanTheOnesOfItsKind) {
  const Plan plan = make(from());
  const Hardware hardware = room_for(0.6 * estimate_of(plan, hardware_of("a100-40")).most_bytes);
  const Advice advice = advise(plan, make, hardware);
  double best_grid_s = 1e300;
  for (const ParallelConfig& grid : grids_of(from(), 8, plan.workload, hardware)) {
    const auto judged = judge(grid, make, hardware);
    if (judged && judged->does_fit) best_grid_s = std::min(best_grid_s, judged->step_s);
  }
  ASSERT_LT(best_grid_s, 1e300);
  double best_proposed_s = 1e300;
  for (const Change& change : advice.changes)
    best_proposed_s = std::min(best_proposed_s, change.judged.step_s);
  EXPECT_LE(best_proposed_s, best_grid_s);
}

TEST(Advice, NothingIsAddedToAChangeThatFitsByItself) {
  const Plan plan = make(from());
  for (const double share : {0.9, 0.5, 0.25}) {
    const Hardware hardware = room_for(share * estimate_of(plan, hardware_of("a100-40")).most_bytes);
    const std::vector<Change> changes = advise(plan, make, hardware).changes;
    for (const Change& small : changes) {
      for (const Change& large : changes) {
        if (&small == &large) continue;
        EXPECT_FALSE(std::ranges::all_of(small.options, [&](const std::string& option) {
          return std::ranges::count(large.options, option) > 0;
        })) << print_advice({.changes = changes}, hardware, 1);
      }
    }
  }
}

TEST(Advice, WhereNothingFitsItSaysHowManyRanksWould) {
  ParallelConfig alone = from();
  alone.data = 1;
  alone.global = 4;
  const Plan plan = make(alone);
  // Room for the parameters and the gradients of an eighth of the model, not of a quarter.
  ParallelConfig eight = alone;
  eight.tensor = 8;
  eight.data = 1;
  const Hardware hardware = room_for(1.02 * estimate_of(make(eight), hardware_of("a100-40")).most_bytes);
  const Advice advice = advise(plan, make, hardware);
  EXPECT_TRUE(advice.changes.empty());
  ASSERT_EQ(advice.ranks, 8);
  EXPECT_FALSE(advice.options_there.empty());
  EXPECT_NE(print_advice(advice, hardware, 1).find("8 ranks of a100-40 would do: --ranks 8 --parallel."),
            std::string::npos);
  const Advice nothing = advise(plan, make, room_for(1000));
  EXPECT_EQ(nothing.ranks, 0);
  EXPECT_NE(print_advice(nothing, hardware, 1).find("choose hardware with more memory"), std::string::npos);
}

TEST(Advice, TheTextHasKeysMemoryTimeAndPrice) {
  ParallelConfig to = from();
  to.zero = 1;
  Advice advice;
  advice.changes.push_back(
      {.options = options_between(from(), to), .judged = {.parallel = to, .step_s = 1.5, .bytes = 2e9}});
  to.recompute = Recompute::full;
  to.recompute_blocks = 3;
  advice.changes.push_back(
      {.options = options_between(from(), to), .judged = {.parallel = to, .step_s = 1.8, .bytes = 1e9}});
  const std::string text = print_advice(advice, hardware_of("l4"), 1.2);
  for (const char* part : {"--parallel.zero 1  ", "1.86 GiB", "1.50 s a step", "+25.0 %", "+50.0 %",
                           "--parallel.zero 1 --train.recompute auto", "full for the first 3 blocks"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace ptrain
