#include "src/train/lr.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace ptrain {
namespace {

Config::Optimizer rules(Config::LearningRate schedule) {
  return {.learning_rate = 2.0,
          .schedule = schedule,
          .warmup_steps = 10,
          .min_ratio = 0.25,
          .decay_fraction = 0.2};
}

TEST(LearningRate, WarmsUpInEqualStepsWhateverTheSchedule) {
  for (const auto schedule : {Config::LearningRate::constant, Config::LearningRate::linear,
                              Config::LearningRate::cosine, Config::LearningRate::wsd}) {
    EXPECT_DOUBLE_EQ(learning_rate(rules(schedule), 1, 110), 0.2);
    EXPECT_DOUBLE_EQ(learning_rate(rules(schedule), 5, 110), 1.0);
    EXPECT_DOUBLE_EQ(learning_rate(rules(schedule), 10, 110), 2.0);
  }
}

TEST(LearningRate, FollowsItsScheduleAfterTheWarmUp) {
  struct Row {
    Config::LearningRate schedule;
    int64_t step;
    double want;
  };
  const double cosine_60 = 0.5 + 1.5 * (1 + std::cos(std::numbers::pi * 0.5)) / 2;
  for (const Row& row :
       {Row{Config::LearningRate::constant, 11, 2.0}, Row{Config::LearningRate::constant, 110, 2.0},
        Row{Config::LearningRate::linear, 60, 1.25}, Row{Config::LearningRate::linear, 110, 0.5},
        Row{Config::LearningRate::cosine, 60, cosine_60}, Row{Config::LearningRate::cosine, 110, 0.5},
        Row{Config::LearningRate::wsd, 88, 2.0}, Row{Config::LearningRate::wsd, 99, 1.25},
        Row{Config::LearningRate::wsd, 110, 0.5}}) {
    EXPECT_NEAR(learning_rate(rules(row.schedule), row.step, 110), row.want, 1e-12) << row.step;
  }
}

TEST(LearningRate, NeedsNoWarmUpAndSurvivesOneThatIsLongerThanTheRun) {
  Config::Optimizer none = rules(Config::LearningRate::linear);
  none.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(none, 1, 1), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(none, 1, 4), 2.0 - 1.5 / 4);
  EXPECT_DOUBLE_EQ(learning_rate(rules(Config::LearningRate::cosine), 3, 3), 0.6);
}

}  // namespace
}  // namespace ptrain
