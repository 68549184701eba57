// log.trace from outside: the file that a run writes, goes on with and leaves when it is stopped.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

const std::vector<std::string> words = {"--parallel.pipeline", "2", "--batch.global=8", "--log.trace"};

ProgramResult run_with(const TinyRun& run, const std::vector<std::string>& more) {
  std::vector<std::string> all = {run.config()};
  all.insert(all.end(), words.begin(), words.end());
  all.insert(all.end(), more.begin(), more.end());
  return ptrain_on(4, all);
}

/// Steps that each rank has spans of, by name.
std::map<std::string, std::set<int64_t>> steps_by_name(const Json& events, int rank) {
  std::map<std::string, std::set<int64_t>> steps;
  for (const Json& event : events) {
    if (event["ph"] == "X" && event["pid"] == rank)
      steps[event["name"].get<std::string>()].insert(event["args"]["step"].get<int64_t>());
  }
  return steps;
}

TEST(TraceProgram, HoldsTheLoggedStepsAndWhatLiesBehindThem) {
  const TinyRun run;
  std::filesystem::copy(run.rows(), run.root() / "held-out.jsonl");
  const ProgramResult result =
      run_with(run, {"--train.steps", "5", "--log.every", "2", "--checkpoint.every", "2",
                     "--evaluation.every", "2", "--data.validation", run.root() / "held-out.jsonl"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json events = read_json(run.output() / "trace.json");
  for (int rank = 0; rank < 4; ++rank) {
    auto steps = steps_by_name(events, rank);
    const std::set<int64_t> logged = {2, 4, 5};
    for (const char* name : {"step", "rows", "forward and backward", "sums of gradients", "norm", "update",
                             "forward", "backward", "reduce", "evaluate", "checkpoint"}) {
      EXPECT_EQ(steps[name], logged) << name << " of rank " << rank;
    }
  }
  // Three lines of metrics, each with the share of the step that ranks waited.
  const std::string metrics = read_text(run.output() / "metrics.jsonl", 1 << 20);
  EXPECT_EQ(times_in("\"exposed_communication\":0.", metrics), 3) << metrics;
}

TEST(TraceProgram, AStepIsDrawnBesideThePlan) {
  const TinyRun run;
  ASSERT_EQ(run_with(run, {"--train.steps", "3"}).code, 0);
  const std::string trace = run.output() / "trace.json", picture = run.root() / "run.svg";
  const auto plan = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {"plan",  run.config(), "--parallel.pipeline", "2", "--batch.global=8",
                                    "--svg", picture};
    all.insert(all.end(), more.begin(), more.end());
    return ptrain_on(1, all);
  };
  for (const auto& [step, words] : std::map<std::string, std::vector<std::string>>{
           {"3", {"--ranks", "4", "--trace", trace}},
           {"2", {"--ranks", "4", "--trace", trace, "--step", "2"}}}) {
    const ProgramResult result = plan(words);
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(times_in("The schedule and step " + step + " of the run as a picture", result.out), 1)
        << result.out;
    const std::string text = read_text(picture, 1 << 20);
    EXPECT_EQ(times_in("step " + step + ", data rank 0, tensor rank 0, measured: ", text), 1);
    EXPECT_EQ(times_in("simulated with the measured forwards and backwards: ", text), 1);
    EXPECT_EQ(times_in("bubble", text), 2);
  }
  // A file that does not fit, or is none; a flag without what it belongs to.
  const std::string torn = run.root() / "torn.json";
  put(torn, "[\n{\"name\":\n]\n");
  struct Refused {
    std::vector<std::string> words;
    int code;
    std::string says;
  };
  for (const Refused& refused : std::vector<Refused>{
           {{"--ranks", "2", "--trace", trace}, 2, "not its place in the plan"},
           {{"--ranks", "4", "--batch.micro", "2", "--trace", trace}, 2, "give the run's own configuration"},
           {{"--ranks", "4", "--trace", trace, "--step", "9"}, 2, "step 9 is not in it; the last one is 3"},
           {{"--ranks", "4", "--trace", torn}, 3, "torn.json:2:"},
           {{"--ranks", "4", "--trace", run.root() / "none.json"}, 3, "no such file; a run with log.trace"},
           {{"--ranks", "4", "--step", "1"}, 2, "--step is one of a run's trace"}}) {
    const ProgramResult result = plan(refused.words);
    EXPECT_EQ(result.code, refused.code) << refused.says << result.err;
    EXPECT_EQ(times_in(refused.says, result.err), 1) << result.err;
  }
  const ProgramResult alone = ptrain_on(1, {"plan", run.config(), "--ranks", "4", "--trace", trace});
  EXPECT_EQ(alone.code, 2);
  EXPECT_EQ(times_in("--trace is drawn into a picture: give --svg FILE too", alone.err), 1) << alone.err;
}

TEST(TraceProgram, ARunThatGoesOnBeginsAFileAndKeepsTheOther) {
  const TinyRun run;
  ASSERT_EQ(run_with(run, {"--train.steps", "2"}).code, 0);
  const std::string before = read_text(run.output() / "trace.json", 1 << 20);
  const ProgramResult again = run_with(run, {"--train.steps", "3"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(times_in("the trace of an earlier start is kept as", again.err), 1) << again.err;
  EXPECT_EQ(read_text(run.output() / "trace-1.json", 1 << 20), before);
  EXPECT_EQ(steps_by_name(read_json(run.output() / "trace.json"), 0)["step"], (std::set<int64_t>{3}));
}

TEST(TraceProgram, AnOutputThatCannotTakeItIsNamed) {
  const TinyRun run;
  // A link to nowhere: no file is there, and none can be made.
  std::filesystem::create_directories(run.output());
  std::filesystem::create_symlink("/proc/no-such-place/trace", run.output() / "trace.json");
  const ProgramResult result = run_with(run, {"--train.steps", "1"});
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_EQ(times_in("trace.json: cannot be written: File exists", result.err), 1) << result.err;
}

}  // namespace
}  // namespace ptrain
