// Ranks of a real job that stop or dawdle: what the program says of them, and with what it ends.
#include <gtest/gtest.h>

#include <regex>

#include "src/io/json.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

constexpr double timeout_s = 3;
// Found within the timeout and 2 s, says the goal; a loaded machine has ten times as long. And a start.
constexpr double bound_s = 10 * (timeout_s + 2) + 30;

/// Tensor 2 * pipeline 2.
void configure(const TinyRun& run, int steps) {
  run.configure(
      fmt::format("parallel: {{tensor: 2, pipeline: 2}}\nbatch: {{micro: 2, global: 8}}\n"
                  "train: {{steps: {}, hang_timeout_s: {}}}\ncheckpoint: {{every: 0}}\n",
                  steps, timeout_s));
}

ProgramResult run_with_fault(const TinyRun& run, const std::string& fault) {
  return run_program(command(4, {run.config().string()}), {"OMP_NUM_THREADS=1", "PTRAIN_FAULT=" + fault});
}

struct Stop {
  std::string name, fault;
  int rank;
  std::string doing;  // what its memory said, as a regular expression
};

class StoppedRank : public testing::TestWithParam<Stop> {};

TEST_P(StoppedRank, IsFoundAndNamedAndTheJobEndsWith66) {
  const Stop& stop = GetParam();
  const TinyRun run;
  configure(run, 100'000);
  const ProgramResult result = run_with_fault(run, stop.fault);
  EXPECT_EQ(result.code, 66) << result.err;
  EXPECT_LT(result.seconds, bound_s);
  const std::string named = fmt::format("hang: rank {} on ", stop.rank);
  EXPECT_EQ(times_in("hang: ", result.err), 1) << result.err;
  EXPECT_EQ(times_in(named, result.err), 1) << result.err;
  EXPECT_NE(result.err.find("has not answered for"), std::string::npos) << result.err;
  const std::regex stands(R"(; it stands in: training, step \d+: )" + stop.doing);
  EXPECT_TRUE(std::regex_search(result.err, stands)) << stop.doing << " is not in:\n" << result.err;
  EXPECT_NE(result.err.find(fmt::format("waits for rank {} ", stop.rank)), std::string::npos) << result.err;

  const Json failure = read_json(run.output() / "failure.json");
  EXPECT_EQ(failure["rank"], stop.rank);
  EXPECT_EQ(failure["exit_code"], 66);
  EXPECT_EQ(failure["phase"], "training");
  EXPECT_GE(failure["step"].get<int>(), 3);
  EXPECT_FALSE(failure["host"].get<std::string>().empty());
  EXPECT_NE(failure["reason"].get<std::string>().find(named), std::string::npos);
  ASSERT_EQ(failure["ranks"].size(), 4u);
  for (int rank = 0; rank < 4; ++rank) {
    const Json& line = failure["ranks"][static_cast<size_t>(rank)];
    EXPECT_EQ(line["rank"], rank);
    EXPECT_EQ(line["is_culprit"], rank == stop.rank);
    EXPECT_TRUE(rank == stop.rank || !line["waits_for"].empty()) << line.dump();
    EXPECT_GT(line["before"].size(), 3u);
  }
  EXPECT_EQ(processes_left(run.root().string()), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Hang, StoppedRank,
    testing::Values(
        Stop{"BeforeACollective", "stop@in_step:rank3:step4", 3, "rows"},
        Stop{"InACollective", "stop@in_collective:rank2:step3", 2,
             "(all_reduce|all_gather|reduce_scatter) [0-9]+ of (tensor|world), in "},
        Stop{"InAReceiveOfThePipeline", "stop@in_message:rank1:step5", 1,
             "(receive from|send to) rank 3, in (receive|send) (gradient|activation) of micro-batch "},
        Stop{"TheOneThatWatches", "stop@in_step:rank0:step3", 0, "rows"}),
    [](const auto& info) { return info.param.name; });

TEST(Hang, TheNextStartGoesOnFromTheCheckpoint) {
  const TinyRun run;
  configure(run, 12);
  EXPECT_EQ(run_with_fault(run, "stop@in_step:rank1:step9").code, 66);
  EXPECT_TRUE(std::filesystem::exists(run.output() / "failure.json"));
  const ProgramResult again = ptrain_on(4, {run.config().string()});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_FALSE(std::filesystem::exists(run.output() / "failure.json"));
}

TEST(Hang, ARankThatNeverEndsIsFoundToo) {
  const TinyRun run;
  configure(run, 3);
  // 60 s for what takes milliseconds: it answers, but its work stands still.
  const ProgramResult result = run_with_fault(run, "slow60000@in_step:rank1:step2");
  EXPECT_EQ(result.code, 66) << result.err;
  EXPECT_NE(result.err.find("hang: rank 1 on "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("has made no progress for"), std::string::npos) << result.err;
  EXPECT_EQ(processes_left(run.root().string()), 0);
}

TEST(Hang, WithoutAWatchNothingIsFoundAndASlowRankIsNot) {
  const TinyRun run;
  configure(run, 3);
  const ProgramResult result =
      run_program(command(4, {run.config().string(), "--train.hang_timeout_s", "0"}),
                  {"OMP_NUM_THREADS=1", "PTRAIN_FAULT=slow5000@in_step:rank1:step2"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err.find("hang"), std::string::npos) << result.err;
}

TEST(Hang, ATooShortTimeoutIsRefused) {
  const TinyRun run;
  configure(run, 3);
  const ProgramResult result = ptrain_on(1, {run.config().string(), "--parallel.tensor", "1",
                                             "--parallel.pipeline", "1", "--train.hang_timeout_s", "0.5"});
  EXPECT_EQ(result.code, 2);
  EXPECT_NE(result.err.find("train.hang_timeout_s = 0.5"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("take 0 (no watch) or at least 1"), std::string::npos) << result.err;
}

TEST(SlowRank, IsNamedOnceWithHostAndFactor) {
  const TinyRun run;
  configure(run, 90);
  const ProgramResult result = run_with_fault(run, "slow40@in_step:rank2");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(times_in(" is slow: ", result.err), 1) << result.err;
  EXPECT_EQ(times_in("warning: rank 2 on ", result.err), 1) << result.err;
  EXPECT_NE(result.err.find(" times as long as its peers"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace ptrain
