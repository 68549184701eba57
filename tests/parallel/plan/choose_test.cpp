#include "parallel/plan/choose.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "parallel/plan/combinations.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

/// Plans of a made-up kind, so that memory and time follow from the choice alone: `bytes` of activations for
/// each block that keeps everything, half of it with selective, an eighth with full.
class Maker {
 public:
  explicit Maker(ToySizes sizes = {.L = 12}) : sizes_(sizes) {}

  Plan operator()(const ParallelConfig& parallel) const {
    ++calls;
    const int64_t micros = parallel.global / (parallel.micro * parallel.data);
    if (refuse_all_but_gpipe && parallel.schedule != ScheduleName::gpipe)
      fail(ExitCode::usage, "{} is refused here", name_of(parallel.schedule));
    check_combination(parallel, micros);
    ParallelConfig whole = parallel;
    whole.recompute = Recompute::none;
    Plan plan = make_plan(toy_workload(sizes_), whole, parallel.tensor * parallel.pipeline * parallel.data);
    plan.parallel = parallel;
    for (const StagePlan& stage : plan.stages) {
      int64_t block = 0;
      for (int64_t index = stage.units.begin; index < stage.units.end(); ++index) {
        Unit& unit = plan.workload.units[static_cast<size_t>(index)];
        if (unit.kind != UnitKind::block) continue;
        const bool is_full = parallel.recompute == Recompute::full && block++ < parallel.recompute_blocks;
        const bool is_selective = parallel.recompute == Recompute::selective;
        unit.kept = {{.name = "kept", .columns = is_full ? 100 : is_selective ? 400 : 800}};
        if (is_full) unit.backward_flops += unit.forward_flops;
      }
    }
    return plan;
  }

  mutable int calls = 0;
  bool refuse_all_but_gpipe = false;

 private:
  ToySizes sizes_;
};

ParallelConfig pipeline_of(int pipeline, int64_t micros) {
  return {.pipeline = pipeline, .global = micros, .sequence_length = 24};
}

/// What a rank holds under a choice.
int64_t bytes_of(const Maker& make, const ParallelConfig& parallel) {
  return static_cast<int64_t>(judge(parallel, make, ideal_hardware(std::nullopt))->bytes);
}

TEST(Choose, NothingOpenIsLeftAlone) {
  const Maker make;
  ParallelConfig from = pipeline_of(4, 8);
  from.recompute = Recompute::selective;
  const Choice choice = choose(from, {}, make, ideal_hardware(1));
  EXPECT_EQ(choice.parallel.recompute, Recompute::selective);
  EXPECT_EQ(choice.why, "");
  EXPECT_EQ(make.calls, 0);
}

TEST(Choose, TheLeastRecomputeThatFitsIsTaken) {
  const Maker make;
  ParallelConfig from = pipeline_of(1, 4);
  const Open open{.is_recompute = true};
  // Of 12 blocks: with room for everything none; a byte less selective; then full for 1, 2, ... blocks.
  const auto chosen = [&](int64_t bytes) { return choose(from, open, make, ideal_hardware(bytes)).parallel; };
  const int64_t all = bytes_of(make, from);
  EXPECT_EQ(choose(from, open, make, ideal_hardware(std::nullopt)).parallel.recompute, Recompute::none);
  EXPECT_EQ(chosen(all).recompute, Recompute::none);
  EXPECT_EQ(chosen(all - 1).recompute, Recompute::selective);
  ParallelConfig full = from;
  full.recompute = Recompute::full;
  for (int64_t blocks = 7; blocks <= 12; ++blocks) {  // 6 blocks of full hold more than selective
    full.recompute_blocks = blocks;
    const int64_t room = bytes_of(make, full);
    const ParallelConfig taken = chosen(room);
    EXPECT_EQ(taken.recompute, Recompute::full);
    EXPECT_EQ(taken.recompute_blocks, blocks == 12 ? all_blocks : blocks) << room;
    EXPECT_LE(bytes_of(make, taken), room);
  }
  // What never fits gets what holds least, and the reason says so.
  const Choice least = choose(from, open, make, ideal_hardware(1000));
  EXPECT_EQ(least.parallel.recompute, Recompute::full);
  EXPECT_EQ(least.parallel.recompute_blocks, all_blocks);
  EXPECT_NE(least.why.find("do not fit"), std::string::npos) << least.why;
}

TEST(Choose, TheScheduleIsTheSimulatorsBestThatFits) {
  const Maker make;
  const ParallelConfig from = pipeline_of(4, 8);
  const Open open{.is_schedule = true};
  // Every candidate by hand.
  struct Candidate {
    ScheduleName schedule;
    int virtual_stages;
  };
  const std::vector<Candidate> candidates = {{ScheduleName::one_f_one_b, 1},
                                             {ScheduleName::interleaved, 2},
                                             {ScheduleName::interleaved, 3},
                                             {ScheduleName::zero_bubble, 1},
                                             {ScheduleName::zero_bubble, 2}};
  std::vector<Judged> judged;
  for (const Candidate& candidate : candidates) {
    ParallelConfig parallel = from;
    parallel.schedule = candidate.schedule;
    parallel.virtual_stages = candidate.virtual_stages;
    const auto one = judge(parallel, make, ideal_hardware(std::nullopt));
    ASSERT_TRUE(one.has_value()) << schedule_text(parallel);
    judged.push_back(*one);
  }
  for (const Judged& limit : judged) {
    double best_s = 1e300;
    for (const Judged& other : judged) {
      if (other.bytes <= limit.bytes) best_s = std::min(best_s, other.step_s);
    }
    const auto room = static_cast<int64_t>(limit.bytes);
    const Choice choice = choose(from, open, make, ideal_hardware(room));
    const Judged taken = *judge(choice.parallel, make, ideal_hardware(room));
    EXPECT_TRUE(taken.does_fit) << choice.why;
    EXPECT_LE(taken.step_s, best_s * 1.001) << choice.why;
    EXPECT_TRUE(choice.why.starts_with("parallel.schedule auto: " + schedule_text(choice.parallel)))
        << choice.why;
  }
}

TEST(Choose, AStageAloneAndAFixedNumberOfStagesAreRespected) {
  const Maker make;
  EXPECT_EQ(
      choose(pipeline_of(1, 8), {.is_schedule = true}, make, ideal_hardware(std::nullopt)).parallel.schedule,
      ScheduleName::one_f_one_b);
  ParallelConfig three = pipeline_of(2, 8);
  three.virtual_stages = 3;
  const ParallelConfig taken =
      choose(three, {.is_schedule = true}, make, ideal_hardware(std::nullopt)).parallel;
  EXPECT_EQ(taken.schedule, ScheduleName::interleaved);
  EXPECT_EQ(taken.virtual_stages, 3);
}

TEST(Choose, GpipeIsTakenOnlyWhereNothingElseIsPossible) {
  Maker make;
  make.refuse_all_but_gpipe = true;
  EXPECT_EQ(
      choose(pipeline_of(2, 8), {.is_schedule = true}, make, ideal_hardware(std::nullopt)).parallel.schedule,
      ScheduleName::gpipe);
  // Where nothing is, the plan's own words come out.
  ParallelConfig impossible = pipeline_of(13, 8);
  try {
    choose(impossible, {.is_schedule = true}, Maker(), ideal_hardware(std::nullopt));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("12 blocks"), std::string::npos) << error.what();
  }
}

TEST(Choose, ADefectIsNoRefusal) {
  const PlanMaker broken = [](const ParallelConfig&) -> Plan { fail(ExitCode::defect, "broken"); };
  EXPECT_THROW(judge({}, broken, ideal_hardware(std::nullopt)), Error);
}

TEST(Choose, TextsNameTheChoice) {
  EXPECT_EQ(schedule_text({.virtual_stages = 3, .schedule = ScheduleName::interleaved}),
            "interleaved, 3 stages a rank");
  EXPECT_EQ(schedule_text({.virtual_stages = 2, .schedule = ScheduleName::zero_bubble}),
            "zero_bubble (ZB-V)");
  EXPECT_EQ(recompute_text({.recompute = Recompute::full, .recompute_blocks = 1}),
            "full for the first block of each stage");
  EXPECT_EQ(recompute_text({.recompute = Recompute::full}), "full");
}

}  // namespace
}  // namespace ptrain
