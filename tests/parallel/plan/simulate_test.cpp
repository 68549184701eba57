#include "parallel/plan/simulate.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

TEST(Simulate, TextbookBubblesComeOutExactly) {
  for (int p = 1; p <= 16; ++p) {
    for (int m : {1, 2, 3, 7, 16, 64}) {
      const StageMap map(p);
      for (const Schedule& schedule : {gpipe(map, m), one_f_one_b(map, m)}) {
        for (double backward_s : {1.0, 2.0, 3.0}) {
          const Costs costs = Costs::uniform(map, 1, backward_s);
          const Report report = simulate(with_transfers(schedule, map), map, costs);
          ASSERT_TRUE(report.is_complete) << report.explanation;
          EXPECT_DOUBLE_EQ(report.step_s, (m + p - 1) * (1 + backward_s));
          EXPECT_NEAR(report.bubble, textbook_bubble(p, m), 1e-15) << schedule.name << " " << p << " " << m;
          EXPECT_EQ(report.exposed_reduce_s, 0);
        }
      }
    }
  }
}

TEST(Simulate, PeakLiveIsTheDistanceToTheEndUnder1f1bAndEverythingUnderGpipe) {
  for (int p = 2; p <= 9; ++p) {
    for (int m : {1, 2, 5, 12}) {
      const StageMap map(p);
      const Costs costs = Costs::uniform(map, 1, 2);
      const Report one = simulate(with_transfers(one_f_one_b(map, m), map), map, costs);
      const Report all = simulate(with_transfers(gpipe(map, m), map), map, costs);
      for (int stage = 0; stage < p; ++stage) {
        EXPECT_EQ(one.peak_live[static_cast<size_t>(stage)][0], std::min(p - stage, m));
        EXPECT_EQ(all.peak_live[static_cast<size_t>(stage)][0], m);
      }
    }
  }
}

TEST(Simulate, LoweringChangesNoTimes) {
  Cases cases(6);
  for (int i = 0; i < 500; ++i) {
    const StageMap map(static_cast<int>(cases.between(1, 8)));
    const int m = static_cast<int>(cases.between(1, 12));
    Costs costs;
    std::vector<int> buckets;
    for (int stage = 0; stage < map.stages(); ++stage) {
      costs.forward_s.push_back(static_cast<double>(cases.between(1, 9)));
      costs.backward_s.push_back(static_cast<double>(cases.between(1, 9)));
      buckets.push_back(static_cast<int>(cases.between(1, 4)));
    }
    const Schedule plain = cases.coin() ? gpipe(map, m) : one_f_one_b(map, m);
    Schedule lowered = with_reductions(with_transfers(plain, map), map, buckets);
    lowered = with_early_receives(with_slots(std::move(lowered), map));
    const Report a = simulate(plain, map, costs), b = simulate(lowered, map, costs);
    ASSERT_TRUE(a.is_complete && b.is_complete) << a.explanation << b.explanation;
    EXPECT_NEAR(a.step_s, b.step_s, 1e-9);
    EXPECT_NEAR(a.bubble, b.bubble, 1e-9);
    EXPECT_EQ(a.peak_live, b.peak_live);
  }
}

TEST(Simulate, RandomCostsNeverDeadlockAndBoundTheStep) {
  Cases cases(7);
  for (int i = 0; i < 1000; ++i) {
    const StageMap map(static_cast<int>(cases.between(1, 10)));
    const int m = static_cast<int>(cases.between(1, 16));
    Costs costs;
    double most_s = 0, path_s = 0;
    for (int stage = 0; stage < map.stages(); ++stage) {
      costs.forward_s.push_back(static_cast<double>(cases.between(1, 100)) / 16);
      costs.backward_s.push_back(static_cast<double>(cases.between(1, 100)) / 16);
      most_s = std::max(most_s, m * (costs.forward_s.back() + costs.backward_s.back()));
      path_s += costs.forward_s.back() + costs.backward_s.back();
    }
    costs.activation_s = static_cast<double>(cases.between(0, 8)) / 16;
    costs.gradient_s = static_cast<double>(cases.between(0, 8)) / 16;
    path_s += (map.stages() - 1) * (costs.activation_s + costs.gradient_s);
    const Schedule schedule = cases.coin() ? gpipe(map, m) : one_f_one_b(map, m);
    const Report report = simulate(with_transfers(schedule, map), map, costs);
    ASSERT_TRUE(report.is_complete) << report.explanation;
    EXPECT_GE(report.step_s, most_s - 1e-9);
    EXPECT_GE(report.step_s, path_s - 1e-9);
    EXPECT_GE(report.bubble, -1e-12);
    EXPECT_LT(report.bubble, 1);
  }
}

TEST(Simulate, TransfersAreExposedOnlyWhereSomebodyWaitsForThem) {
  const StageMap map(2);
  Costs costs = Costs::uniform(map, 1, 1);
  costs.activation_s = 0.25;
  costs.gradient_s = 0.5;
  // F0 | 0.25 | F0 B0 | 0.5 | B0: with one micro every transfer is exposed.
  const Report report = simulate(with_transfers(gpipe(map, 1), map), map, costs);
  EXPECT_DOUBLE_EQ(report.step_s, 4.75);
  EXPECT_DOUBLE_EQ(report.exposed_transfer_s[0], 0.5);
  EXPECT_DOUBLE_EQ(report.exposed_transfer_s[1], 0.25);
  // With eight under gpipe the later activations travel while the stage computes.
  const Report many = simulate(with_transfers(gpipe(map, 8), map), map, costs);
  EXPECT_DOUBLE_EQ(many.exposed_transfer_s[1], 0.25);
}

TEST(Simulate, ReductionsRunBesideTheLastBackward) {
  const StageMap map(1);
  Costs costs = Costs::uniform(map, 1, 4);
  costs.reduce_s = {{1, 1, 1, 1}};
  const Schedule schedule = with_reductions(gpipe(map, 1), map, {4});
  const Report report = simulate(schedule, map, costs);
  EXPECT_DOUBLE_EQ(report.step_s, 6);  // only the last of four is exposed
  EXPECT_DOUBLE_EQ(report.exposed_reduce_s, 1);
}

TEST(Simulate, AMissingSendIsADeadlockThatNamesTheFinishedPosition) {
  const StageMap map(3);
  Schedule schedule = with_transfers(one_f_one_b(map, 2), map);
  std::vector<Action>& program = schedule.programs[2];
  std::erase_if(program, [](const Action& action) {
    return action.kind == ActionKind::send_gradient && action.micro == 1;
  });
  const Report report = simulate(schedule, map, Costs::uniform(map, 1, 2));
  EXPECT_FALSE(report.is_complete);
  EXPECT_NE(report.explanation.find("position 2 has finished: a send is missing"), std::string::npos)
      << report.explanation;
  EXPECT_NE(report.explanation.find("the gradient of micro-batch 1 is not sent by position 2"),
            std::string::npos)
      << report.explanation;
}

TEST(Simulate, AMissingReceiveIsExplained) {
  const StageMap map(2);
  Schedule schedule = with_transfers(gpipe(map, 3), map);
  std::erase_if(schedule.programs[1], [](const Action& action) {
    return action.kind == ActionKind::receive_activation && action.micro == 2;
  });
  const Report report = simulate(schedule, map, Costs::uniform(map, 1, 2));
  EXPECT_FALSE(report.is_complete);
  EXPECT_NE(report.explanation.find("(F2), because its activation is never received: the receive is missing"),
            std::string::npos)
      << report.explanation;
  EXPECT_NE(report.explanation.find("the cause is at position 1"), std::string::npos) << report.explanation;
}

TEST(Simulate, SwappedSendsAreExplained) {
  const StageMap map(2);
  Schedule schedule = with_transfers(gpipe(map, 3), map);
  std::vector<Action*> sends;
  for (Action& action : schedule.programs[0]) {
    if (is_send(action.kind)) sends.push_back(&action);
  }
  std::swap(*sends[0], *sends[1]);
  const Report report = simulate(schedule, map, Costs::uniform(map, 1, 2));
  EXPECT_FALSE(report.is_complete);
  EXPECT_NE(report.explanation.find("different order"), std::string::npos) << report.explanation;
}

TEST(Simulate, BlockingSendsWouldDeadlock1f1bInACircle) {
  const StageMap map(2);
  const Costs costs = Costs::uniform(map, 1, 2);
  const Schedule schedule = with_transfers(one_f_one_b(map, 4), map);
  EXPECT_TRUE(simulate(schedule, map, costs).is_complete);
  const Report report = simulate(schedule, map, costs, SendMode::rendezvous);
  EXPECT_FALSE(report.is_complete);
  EXPECT_NE(report.explanation.find("they wait in a circle: 0 -> 1 -> 0"), std::string::npos)
      << report.explanation;
  // Gpipe gets through: nothing runs both ways at once.
  EXPECT_TRUE(simulate(with_transfers(gpipe(map, 4), map), map, costs, SendMode::rendezvous).is_complete);
}

TEST(Simulate, TheGridShowsTimeAcrossAndStagesDown) {
  const StageMap map(2);
  const Schedule schedule = with_transfers(one_f_one_b(map, 3), map);
  const Report report = simulate(schedule, map, Costs::uniform(map, 1, 2));
  EXPECT_EQ(grid(schedule, map, report),
            "stage 0   F0 F1       B0 -- F2 B1 --    B2 --\n"
            "stage 1      F0 B0 -- F1 B1 -- F2 B2 --\n")
      << grid(schedule, map, report);
}

TEST(Simulate, AWideGridShowsBeginningAndEnd) {
  const StageMap map(4);
  const Schedule schedule = one_f_one_b(map, 200);
  const Report report = simulate(schedule, map, Costs::uniform(map, 1, 2));
  const std::string text = grid(schedule, map, report, 100);
  EXPECT_NE(text.find("F0 "), std::string::npos);
  EXPECT_NE(text.find("B199"), std::string::npos);
  EXPECT_NE(text.find("of 609 time steps shown"), std::string::npos) << text;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find('\n', begin);
    EXPECT_LE((end == std::string::npos ? text.size() : end) - begin, 100u);
  }
}

}  // namespace
}  // namespace ptrain
