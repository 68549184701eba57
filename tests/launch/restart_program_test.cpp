// How a run ends before its time and starts again: signals to any rank, at any time, more than one; starts
// that bring nothing; replicas that differ.
#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

using Words = std::vector<std::string>;

// mpirun ends what is left of a job at once.
const Words quick = {"OMP_NUM_THREADS=1", "OMPI_MCA_odls_base_sigkill_timeout=0"};

Words joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

Words words_of(const TinyRun& run, const Words& more) {
  return joined({run.config(), "--batch.global", "8", "--data.shuffle", "true"}, more);
}

ProgramResult train(int ranks, const TinyRun& run, const Words& more, const std::string& faults = "") {
  return run_program(command(ranks, words_of(run, more)), joined(quick, {"PTRAIN_FAULT=" + faults}));
}

/// What each line of metrics.jsonl says that does not depend on the clock.
std::vector<std::string> numbers_of(const TinyRun& run) {
  std::vector<std::string> rows;
  const auto path = run.output() / "metrics.jsonl";
  const std::string text = std::filesystem::exists(path) ? read_text(path, 1 << 24) : "";
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const Json row = parse_json(std::string_view(text).substr(begin, end - begin), "metrics");
    if (row.contains("eval_loss")) {
      rows.push_back("eval " + row["step"].dump() + " " + row["eval_loss"].dump());
    } else {
      rows.push_back(row["step"].dump() + " " + row["loss"].dump() + " " + row["grad_norm"].dump());
    }
  }
  return rows;
}

bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 12'000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return condition();
}

/// The ranks of a run: processes that began as ptrain on its configuration.
std::vector<pid_t> ranks_of(const TinyRun& run) {
  std::vector<pid_t> ranks;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::stringstream line;
    line << std::ifstream(entry.path() / "cmdline", std::ios::binary).rdbuf();
    if (line.str().starts_with(PTRAIN_PROGRAM) && line.str().find(run.config()) != std::string::npos)
      ranks.push_back(std::stoi(entry.path().filename()));
  }
  return ranks;
}

/// Whether a save is under way.
bool is_saving(const TinyRun& run) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(run.output() / "checkpoints", error), end; !error && it != end;
       it.increment(error))
    if (it->path().filename().string().starts_with(".tmp-")) return true;
  return false;
}

const Words grid = {"--parallel.pipeline", "2", "--train.steps", "400", "--checkpoint.every", "0"};

TEST(Signals, ToOneRankTwiceAndDuringTheSaveAllLeaveWith75AndLoseNothing) {
  const TinyRun unbroken, stopped;
  std::filesystem::copy(stopped.rows(), stopped.root() / "held-out.jsonl");
  std::filesystem::copy(unbroken.rows(), unbroken.root() / "held-out.jsonl");
  const auto all = [](const TinyRun& run) {
    return joined(grid, {"--data.validation", run.root() / "held-out.jsonl", "--evaluation.every", "1",
                         "--evaluation.keep_best", "false", "--train.steps", "60"});
  };
  ASSERT_EQ(train(4, unbroken, all(unbroken)).code, 0);
  const std::vector<std::string> want = numbers_of(unbroken);
  ASSERT_EQ(want.size(), 120u);

  for (const int first : {SIGTERM, SIGUSR1}) {
    // The save takes its time, so that the second and third signal come while it is under way.
    RunningProgram job(command(4, words_of(stopped, all(stopped))),
                       joined(quick, {"PTRAIN_FAULT=slow1000@mid_write"}));
    const size_t before = numbers_of(stopped).size();
    ASSERT_TRUE(wait_for([&] { return numbers_of(stopped).size() >= before + 5; })) << job.so_far().err;
    std::vector<pid_t> ranks = ranks_of(stopped);
    ASSERT_EQ(ranks.size(), 4u);
    ::kill(ranks[2], first);
    ASSERT_TRUE(wait_for([&] { return is_saving(stopped); })) << job.so_far().err;
    for (const pid_t rank : ranks) ::kill(rank, SIGUSR1);
    ::kill(ranks[1], SIGTERM);
    const ProgramResult result = job.wait();
    EXPECT_EQ(result.code, 75) << result.err;
    EXPECT_EQ(times_in("asked to stop: saved ", result.err), 1) << result.err;
    EXPECT_FALSE(is_saving(stopped)) << "the save was finished";
    EXPECT_FALSE(std::filesystem::exists(stopped.output() / "failure.json"));
    EXPECT_FALSE(std::filesystem::exists(stopped.output() / "restarts.json"));
  }
  const ProgramResult rest = train(4, stopped, all(stopped));
  EXPECT_EQ(rest.code, 0) << rest.err;
  // The evaluation that was due when the signal came is made up for by the next start.
  EXPECT_EQ(numbers_of(stopped), want);
}

TEST(Signals, BeforeTheFirstStepTheFirstStepIsSaved) {
  const TinyRun run;
  RunningProgram job(command(1, words_of(run, {"--train.steps", "50"})), quick);
  ASSERT_TRUE(wait_for([&] { return std::filesystem::exists(run.output() / ".lock"); })) << job.so_far().err;
  ::kill(job.pid(), SIGUSR1);
  const ProgramResult result = job.wait();
  EXPECT_EQ(result.code, 75) << result.err;
  EXPECT_GE(numbers_of(run).size(), 1u);
}

TEST(CrashLoop, TheFourthStartThatWouldBringNothingEndsWith67) {
  const TinyRun run;
  const Words steps = {"--train.steps", "8"};
  for (int i = 0; i < 2; ++i) EXPECT_EQ(train(1, run, steps, "kill@step:step3").code, 128 + SIGKILL);
  EXPECT_EQ(train(1, run, steps, "nan@gradient").code, 64);
  EXPECT_EQ(read_json(run.output() / "restarts.json")["starts"].size(), 3u);
  for (int i = 0; i < 2; ++i) {  // and so it stays
    const ProgramResult refused = train(1, run, steps);
    EXPECT_EQ(refused.code, 67) << refused.err;
    for (const char* text : {"3 starts in a row went on from step 0", "exit code 64 on rank 0", "not finite",
                             "restarts.json", "train.max_fruitless_starts"})
      EXPECT_EQ(times_in(text, refused.err), 1) << refused.err;
    EXPECT_EQ(read_json(run.output() / "failure.json")["exit_code"], 67);
  }
  const ProgramResult changed = train(1, run, joined(steps, {"--optimizer.learning_rate", "0.001"}));
  EXPECT_EQ(changed.code, 0) << changed.err;
  EXPECT_FALSE(std::filesystem::exists(run.output() / "restarts.json"));
  EXPECT_FALSE(std::filesystem::exists(run.output() / "failure.json"));
}

TEST(CrashLoop, ProgressAndErrorsOfTheUsersCountForNothing) {
  const TinyRun run;
  const Words steps = {"--train.steps",
                       "9",
                       "--checkpoint.every",
                       "1",
                       "--checkpoint.asynchronous",
                       "false",
                       "--train.max_fruitless_starts",
                       "1"};
  for (int step = 3; step < 8; ++step) {  // each start comes a step further
    EXPECT_EQ(train(1, run, steps, fmt::format("kill@step:step{}", step)).code, 128 + SIGKILL);
    EXPECT_EQ(train(1, run, joined(steps, {"--train.seed", "9"})).code, 2);
  }
  EXPECT_EQ(train(1, run, steps).code, 0);
}

TEST(Replicas, AFlippedBitIsFoundWithinTheStepsBetweenLooksAndItsRankNamed) {
  const Words data = {"--train.steps", "14", "--checkpoint.every", "4"};
  const TinyRun whole, shared, clean;
  const ProgramResult found =
      train(4, whole, joined(data, {"--parallel.zero", "0", "--train.check_replicas_every", "10"}),
            "flip@weight:rank2:step9");
  EXPECT_EQ(found.code, 64) << found.err;
  for (const char* text : {"after step 10: ", "model.embed_tokens.weight", "rank 2 (host ",
                           "holds other values than ranks 0, 1, 3"})
    EXPECT_EQ(times_in(text, found.err), 1) << found.err;
  EXPECT_EQ(
      times_in("rank 2 (host ", read_json(whole.output() / "failure.json")["reason"].get<std::string>()), 1);
  EXPECT_TRUE(std::filesystem::exists(whole.output() / "checkpoints" / "step-00000008")) << "from before it";

  // Before a checkpoint they are compared anyway: none holds the wrong bit.
  const ProgramResult saved =
      train(4, shared, joined(data, {"--train.check_replicas_every", "1000"}), "flip@weight:rank2:step8");
  EXPECT_EQ(saved.code, 64) << saved.err;
  EXPECT_EQ(times_in("after step 8: ", saved.err), 1) << saved.err;
  EXPECT_FALSE(std::filesystem::exists(shared.output() / "checkpoints" / "step-00000008"));

  for (const char* zero : {"0", "3"}) {
    const ProgramResult none =
        train(4, clean, joined(data, {"--parallel.zero", zero, "--train.check_replicas_every", "1"}));
    EXPECT_EQ(none.code, 0) << none.err;
  }
}

}  // namespace
}  // namespace ptrain
