// What holds for every schedule, over thousands of random cases; schedule_test.cpp has gpipe and 1f1b and the
// passes, zero_bubble_test.cpp the single schedules.
#include <gtest/gtest.h>

#include <set>

#include "parallel/plan/simulate.h"
#include "tests/parallel/plan/guarded_play.h"
#include "tests/parallel/plan/random_cases.h"
#include "tests/support/schedules.h"

namespace ptrain {
namespace {

struct Lowered {
  std::string what;
  StageMap map{1};
  std::vector<int> buckets;
  Schedule plain, schedule;
};

Lowered random_schedule(Cases& cases) {
  const NamedSchedule& named = cases.one_of(all_schedules());
  const bool may_vary = std::string(named.name) == "gpipe" || std::string(named.name) == "interleaved";
  Lowered result;
  result.map = StageMap(static_cast<int>(cases.between(1, 9)),
                        may_vary ? static_cast<int>(cases.between(1, 4)) : named.chunks, named.order);
  const int micros = static_cast<int>(cases.between(1, 25));
  result.what = fmt::format("{}, {} positions, {} chunks, {} micro-batches", named.name,
                            result.map.positions(), result.map.chunks(), micros);
  for (int stage = 0; stage < result.map.stages(); ++stage)
    result.buckets.push_back(static_cast<int>(cases.between(1, 4)));
  result.plain = named.make(result.map, micros);
  Schedule schedule = with_transfers(result.plain, result.map);
  schedule = with_slots(with_reductions(std::move(schedule), result.map, result.buckets), result.map);
  result.schedule = cases.coin() ? with_early_receives(std::move(schedule)) : std::move(schedule);
  return result;
}

Costs random_costs(const StageMap& map, Cases& cases) {
  Costs costs;
  for (int stage = 0; stage < map.stages(); ++stage) {
    costs.forward_s.push_back(static_cast<double>(cases.between(1, 100)) / 16);
    costs.backward_s.push_back(static_cast<double>(cases.between(1, 100)) / 16);
    costs.input_share.push_back(static_cast<double>(cases.between(1, 9)) / 10);
  }
  costs.activation_s = static_cast<double>(cases.between(0, 8)) / 16;
  costs.gradient_s = static_cast<double>(cases.between(0, 8)) / 16;
  costs.hand_s = static_cast<double>(cases.between(0, 8)) / 16;
  return costs;
}

/// Micros of a chunk that are alive at once: from what brings the activation to the last part of the
/// backward.
int most_alive(const std::vector<Action>& program, int chunk) {
  std::map<int, size_t> last_use;
  for (size_t i = 0; i < program.size(); ++i) {
    if (is_backward(program[i].kind) && program[i].chunk == chunk) last_use[program[i].micro] = i;
  }
  std::set<int> alive;
  size_t most = 0;
  for (size_t i = 0; i < program.size(); ++i) {
    const Action& action = program[i];
    const bool begins = (action.chunk == chunk &&
                         (is_forward(action.kind) || action.kind == ActionKind::receive_activation)) ||
                        (action.kind == ActionKind::hand_activation && action.to_chunk == chunk);
    if (begins) alive.insert(action.micro);
    most = std::max(most, alive.size());
    if (action.chunk == chunk && is_backward(action.kind) && last_use[action.micro] == i)
      alive.erase(action.micro);
  }
  return static_cast<int>(most);
}

TEST(AllSchedules, AreValidHoldWhatTheyAllocateAndNeverDeadlock) {
  Cases cases(11);
  for (int i = 0; i < 4000; ++i) {
    const Lowered lowered = random_schedule(cases);
    ASSERT_EQ(fault_of(lowered.plain, lowered.map), "") << lowered.what;
    ASSERT_EQ(fault_of(lowered.schedule, lowered.map, lowered.buckets), "") << lowered.what;
    // 1. By the simulator, with costs as they come.
    const Costs costs = random_costs(lowered.map, cases);
    const Report report = simulate(lowered.schedule, lowered.map, costs);
    ASSERT_TRUE(report.is_complete) << lowered.what << ": " << report.explanation;
    EXPECT_GE(report.bubble, -1e-12);
    EXPECT_LT(report.bubble, 1);
    // 2. With messages that leave no sooner than they are received.
    ASSERT_EQ(GuardedPlay(lowered.schedule, lowered.map).run(), "") << lowered.what;
    // 3. Slots are what is alive.
    const auto slots = slots_of(lowered.schedule, lowered.map);
    EXPECT_EQ(report.peak_live, slots);
    for (size_t position = 0; position < slots.size(); ++position) {
      for (int chunk = 0; chunk < lowered.map.chunks(); ++chunk) {
        EXPECT_EQ(slots[position][static_cast<size_t>(chunk)],
                  most_alive(lowered.schedule.programs[position], chunk))
            << lowered.what;
      }
    }
  }
}

TEST(AllSchedules, TheStepIsNoShorterThanAnyPositionsWorkOrAnyMicrosWay) {
  Cases cases(12);
  for (int i = 0; i < 1000; ++i) {
    const Lowered lowered = random_schedule(cases);
    const Costs costs = random_costs(lowered.map, cases);
    const Report report = simulate(lowered.schedule, lowered.map, costs);
    double way_s = 0;
    std::vector<double> work_s(static_cast<size_t>(lowered.map.positions()));
    const bool is_halved = lowered.schedule.name == "zero_bubble";
    for (int stage = 0; stage < lowered.map.stages(); ++stage) {
      const auto s = static_cast<size_t>(stage);
      const double both_s = costs.forward_s[s] + costs.backward_s[s];
      work_s[static_cast<size_t>(lowered.map.position_of(stage))] += lowered.schedule.micros * both_s;
      way_s += costs.forward_s[s] + costs.backward_s[s] * (is_halved ? costs.input_share[s] : 1);
    }
    EXPECT_GE(report.step_s, way_s - 1e-9) << lowered.what;
    for (size_t position = 0; position < work_s.size(); ++position) {
      EXPECT_GE(report.step_s, work_s[position] - 1e-9) << lowered.what;
      EXPECT_NEAR(report.busy_s[position], work_s[position], 1e-9 * work_s[position]) << lowered.what;
    }
  }
}

TEST(AllSchedules, LoweringChangesNoTimesWhereTransfersAndHandsAreFree) {
  Cases cases(13);
  for (int i = 0; i < 500; ++i) {
    const Lowered lowered = random_schedule(cases);
    Costs costs = random_costs(lowered.map, cases);
    costs.activation_s = costs.gradient_s = costs.hand_s = 0;
    const Report plain = simulate(lowered.plain, lowered.map, costs);
    const Report report = simulate(lowered.schedule, lowered.map, costs);
    ASSERT_TRUE(plain.is_complete) << lowered.what << ": " << plain.explanation;
    EXPECT_NEAR(plain.step_s, report.step_s, 1e-9 * plain.step_s) << lowered.what;
  }
}

TEST(AllSchedules, HoldAtTheSizesOfAThousandRanks) {
  for (const NamedSchedule& named : all_schedules()) {
    const StageMap map(64, named.chunks == 3 ? 4 : named.chunks, named.order);
    const std::vector<int> buckets(static_cast<size_t>(map.stages()), 3);
    Schedule schedule = with_reductions(with_transfers(named.make(map, 512), map), map, buckets);
    schedule = with_early_receives(with_slots(std::move(schedule), map));
    EXPECT_EQ(fault_of(schedule, map, buckets), "") << named.name;
    EXPECT_TRUE(simulate(schedule, map, Costs::uniform(map, 1, 2)).is_complete) << named.name;
  }
}

TEST(AllSchedules, ForwardsAloneNeverDeadlockInTheirSlotsAndKeepAllPositionsBusy) {
  Cases cases(14);
  for (int i = 0; i < 2000; ++i) {
    const Lowered lowered = random_schedule(cases);
    const Schedule forwards = forwards_of(lowered.schedule, lowered.map);
    ASSERT_EQ(GuardedPlay(forwards, lowered.map).run(), "") << lowered.what;
    EXPECT_EQ(slots_of(forwards, lowered.map), slots_of(lowered.schedule, lowered.map)) << lowered.what;
    const Report report = simulate(forwards, lowered.map, Costs::uniform(lowered.map, 1, 0));
    ASSERT_TRUE(report.is_complete) << lowered.what << ": " << report.explanation;
    // The way of one micro through all stages, and all work of a position: for each at most its time.
    EXPECT_LE(report.step_s, lowered.map.stages() + lowered.map.chunks() * lowered.schedule.micros +
                                 lowered.map.chunks() * lowered.map.positions())
        << lowered.what;
  }
}

}  // namespace
}  // namespace ptrain
