#include "parallel/plan/measured.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

/// Of a few sums of numbers around one.
constexpr double rounding = 1e-12;

struct Case {
  const char* name;
  Schedule schedule;
  StageMap map;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int positions : {1, 2, 4}) {
    for (int micros : {1, 3, 8}) {
      const StageMap map(positions);
      for (const auto& [name, plain] :
           {std::pair{"gpipe", gpipe(map, micros)}, std::pair{"1f1b", one_f_one_b(map, micros)}}) {
        const std::vector<int> buckets(static_cast<size_t>(positions), 3);
        all.push_back(
            {name, with_slots(with_reductions(with_transfers(plain, map), map, buckets), map), map});
      }
    }
  }
  return all;
}

Costs uneven(const StageMap& map) {
  Costs costs = Costs::uniform(map, 0, 0);
  for (int i = 0; i < map.stages(); ++i) {
    const auto stage = static_cast<size_t>(i);
    costs.forward_s[stage] = 1 + 0.25 * i;
    costs.backward_s[stage] = 2 + 0.125 * i;
    costs.input_share.push_back(0.25 + 0.0625 * i);
    costs.bucket_share.push_back({0.5, 0.25, 0.25});
  }
  return costs;
}

TEST(Measured, OfASimulatedRunTheCostsAndTheReportComeBack) {
  for (const auto& [name, schedule, map] : cases()) {
    SCOPED_TRACE(fmt::format("{}, {} positions, {} micros", name, map.positions(), schedule.micros));
    const Costs costs = uneven(map);
    const Report simulated = simulate(schedule, map, costs);
    const Costs found = measured_costs(schedule, map, simulated.intervals);
    for (size_t stage = 0; stage < costs.forward_s.size(); ++stage) {
      EXPECT_NEAR(found.forward_s[stage], costs.forward_s[stage], rounding);
      EXPECT_NEAR(found.backward_s[stage], costs.backward_s[stage], rounding);
      if (schedule.name.starts_with("zero")) {  // the only ones that have halves
        EXPECT_NEAR(found.input_share[stage], costs.input_share[stage], rounding);
      }
      for (size_t bucket = 0; bucket < 3; ++bucket)
        EXPECT_NEAR(found.bucket_share[stage][bucket], costs.bucket_share[stage][bucket], rounding);
    }
    const Report report = measured_report(schedule, map, simulated.intervals);
    EXPECT_NEAR(report.step_s, simulated.step_s, rounding);
    EXPECT_NEAR(report.bubble, simulated.bubble, rounding);
    EXPECT_NEAR(simulate(schedule, map, found).step_s, simulated.step_s, rounding * schedule.micros);
  }
}

TEST(Measured, TimesCountFromTheFirstComputeWhereverTheClockStood) {
  const StageMap map(2);
  const Schedule schedule = with_slots(with_transfers(one_f_one_b(map, 2), map), map);
  MeasuredIntervals late = simulate(schedule, map, Costs::uniform(map, 1, 2)).intervals;
  for (std::vector<Interval>& program : late) {
    for (Interval& interval : program) interval = {interval.begin_s + 512, interval.end_s + 512};
  }
  late[0][1] = {3, 4};  // of a send: not looked at
  ASSERT_FALSE(is_compute(schedule.programs[0][1].kind));
  const Report report = measured_report(schedule, map, late);
  EXPECT_EQ(report.intervals[0][0].begin_s, 0);
  EXPECT_EQ(report.step_s, 9);  // 1 + (1 + 2) * 2 + 2
  EXPECT_EQ(report.busy_s, (std::vector<double>{6, 6}));
  EXPECT_NEAR(report.bubble, textbook_bubble(2, 2), rounding);
}

TEST(Measured, OfAnotherScheduleAreRefused) {
  const StageMap map(2);
  const MeasuredIntervals other(2, std::vector<Interval>(3));
  EXPECT_THROW(measured_costs(gpipe(map, 4), map, other), Error);
  EXPECT_THROW(measured_report(gpipe(map, 4), map, {}), Error);
}

}  // namespace
}  // namespace ptrain
