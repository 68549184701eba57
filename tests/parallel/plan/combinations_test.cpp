#include "parallel/plan/combinations.h"

#include <gtest/gtest.h>

#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

struct Case {
  ParallelConfig parallel;
  int64_t micros = 1;
  const char* key;   // null: possible
  const char* says;  // a part of the text
};

TEST(Combinations, TheImpossibleOnesAreRefusedWithTheReasonAndTheNearestPossibleOne) {
  const ParallelConfig grid{.is_grid_invariant = true};
  const auto of_grid = [&](int data, int zero, int64_t micro, int64_t micros) {
    ParallelConfig parallel = grid;
    parallel.data = data;
    parallel.zero = zero;
    parallel.micro = micro;
    parallel.global = micro * data * micros;
    return parallel;
  };
  const std::vector<Case> cases = {
      {{.zero = -1}, 1, "parallel.zero", " = -1; choose 0, 1, 2 or 3"},
      {{.zero = 4}, 1, "parallel.zero", " = 4; choose 0, 1, 2 or 3"},
      {{.virtual_stages = 0}, 1, "parallel.virtual_stages", " = 0 must be at least 1"},
      {{.virtual_stages = 2, .schedule = ScheduleName::one_f_one_b},
       8,
       "parallel.virtual_stages",
       " = 2 needs parallel.schedule interleaved (or zero_bubble with 2): schedule 1f1b has one stage a "
       "rank; "
       "set it to 1, or parallel.schedule to interleaved"},
      {{.virtual_stages = 3, .schedule = ScheduleName::gpipe},
       8,
       "parallel.virtual_stages",
       "schedule gpipe has one stage"},
      {{.virtual_stages = 3, .schedule = ScheduleName::zero_bubble},
       8,
       "parallel.virtual_stages",
       " = 3 with parallel.schedule zero_bubble: it has one stage a rank (H1) or two, there and back (ZB-V); "
       "set it to 2"},
      {{.schedule = ScheduleName::zero_bubble, .recompute = Recompute::selective},
       8,
       "train.recompute",
       " = selective with parallel.schedule zero_bubble: the weights' half of a backward comes later and "
       "still "
       "needs what would be dropped; set it to none, or parallel.schedule to 1f1b"},
      {{.virtual_stages = 2, .schedule = ScheduleName::zero_bubble, .recompute = Recompute::full},
       8,
       "train.recompute",
       "set it to none, or parallel.schedule to interleaved"},
      {{.schedule = ScheduleName::zero_bubble, .zero = 2},
       8,
       "parallel.zero",
       "set it to 1, or parallel.schedule to 1f1b"},
      {{.virtual_stages = 2, .schedule = ScheduleName::zero_bubble, .zero = 3},
       8,
       "parallel.zero",
       "gradients are held whole"},
      {of_grid(2, 2, 1, 4), 4, "parallel.zero",
       " = 2 with train.deterministic grid and 4 micro-batches a step on each data rank: it sums over ranks "
       "after each of them, so that the order of a sum depends on the grid; set it to 1, or batch.micro to 4 "
       "for one micro-batch"},
      {of_grid(3, 3, 2, 3), 3, "parallel.zero", "batch.micro to 6 for one micro-batch"},
      {of_grid(2, 1, 1, 6), 6, "batch.global",
       " = 12 makes 6 micro-batches a step on each of 2 data ranks; with train.deterministic grid their "
       "number "
       "must be a power of two, so that each rank sums a whole branch of the tree; set batch.micro to 3, or "
       "batch.global to 8 or 16"},
      {of_grid(3, 1, 2, 5), 5, "batch.global", "set batch.micro to 5, or batch.global to 24 or 48"},
      {of_grid(4, 0, 4, 3), 3, "batch.global", "set batch.micro to 3, or batch.global to 32 or 64"},
      // What stands beside them and is possible.
      {of_grid(1, 1, 1, 6), 6, nullptr, ""},
      {of_grid(3, 1, 1, 8), 8, nullptr, ""},
      {of_grid(3, 3, 1, 1), 1, nullptr, ""},
      {of_grid(1, 3, 2, 3), 3, nullptr, ""},  // one data rank has nothing to share
      {{.data = 3, .zero = 3}, 6, nullptr, ""},
      {{.virtual_stages = 1, .schedule = ScheduleName::interleaved}, 8, nullptr, ""},
      {{.virtual_stages = 5, .schedule = ScheduleName::interleaved, .zero = 3, .recompute = Recompute::full},
       8,
       nullptr,
       ""},
      {{.virtual_stages = 1, .schedule = ScheduleName::zero_bubble}, 8, nullptr, ""},
      {{.virtual_stages = 2, .schedule = ScheduleName::zero_bubble, .zero = 0}, 8, nullptr, ""},
      {{.schedule = ScheduleName::zero_bubble, .recompute = Recompute::full, .recompute_blocks = 0},
       8,
       nullptr,
       ""},
      {{.schedule = ScheduleName::gpipe, .zero = 2, .recompute = Recompute::selective}, 8, nullptr, ""},
  };
  for (const Case& what : cases) {
    const auto objection = objection_to(what.parallel, what.micros);
    ASSERT_EQ(objection.has_value(), what.key != nullptr) << what.says << (objection ? objection->text : "");
    if (!objection) {
      check_combination(what.parallel, what.micros);
      continue;
    }
    EXPECT_EQ(objection->key, what.key) << objection->text;
    EXPECT_NE(objection->text.find(what.says), std::string::npos)
        << objection->text << "\nexpected: " << what.says;
    try {
      check_combination(what.parallel, what.micros);
      ADD_FAILURE() << "accepted: " << what.says;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_EQ(std::string(error.what()), objection->key + objection->text);
    }
  }
}

TEST(Combinations, WhatIsProposedForGridInvarianceIsPossible) {
  Cases cases(5);
  for (int i = 0; i < 2000; ++i) {
    ParallelConfig parallel{.data = static_cast<int>(cases.between(2, 9)), .is_grid_invariant = true};
    parallel.micro = cases.between(1, 12);
    const int64_t micros = cases.between(1, 40);
    parallel.global = parallel.micro * parallel.data * micros;
    const auto objection = objection_to(parallel, micros);
    if (!objection) continue;
    const std::string& text = objection->text;
    const auto number_behind = [&](const std::string& words) {
      return std::stoll(text.substr(text.find(words) + words.size()));
    };
    const int64_t micro = number_behind("set batch.micro to ");
    const int64_t below = number_behind("batch.global to "),
                  above = number_behind(fmt::format("to {} or ", below));
    ASSERT_EQ(parallel.global % (micro * parallel.data), 0) << text;
    const int64_t other = parallel.global / (micro * parallel.data);
    parallel.micro = micro;
    EXPECT_FALSE(objection_to(parallel, other)) << text;
    parallel.micro = parallel.global / (parallel.data * micros);
    EXPECT_LT(below, parallel.global);
    EXPECT_GT(above, parallel.global);
    for (const int64_t global : {below, above}) {
      ASSERT_EQ(global % (parallel.micro * parallel.data), 0) << text;
      EXPECT_FALSE(objection_to(parallel, global / (parallel.micro * parallel.data))) << text;
    }
  }
}

TEST(Combinations, EveryStageNeedsABlock) {
  check_stages({.pipeline = 4, .virtual_stages = 3, .schedule = ScheduleName::interleaved}, 12);
  const std::vector<std::pair<ParallelConfig, const char*>> refused = {
      {{.pipeline = 4, .virtual_stages = 4, .schedule = ScheduleName::interleaved},
       "parallel.pipeline * parallel.virtual_stages = 4 * 4 = 16 stages, but the model has 12 blocks and "
       "every "
       "stage needs one; set parallel.virtual_stages to at most 3"},
      {{.pipeline = 13},
       "= 13 * 1 = 13 stages, but the model has 12 blocks and every stage needs one; set "
       "parallel.pipeline to at most 12"},
  };
  for (const auto& [parallel, says] : refused) {
    try {
      check_stages(parallel, 12);
      ADD_FAILURE() << "accepted: " << says;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace ptrain
