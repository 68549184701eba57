// Wrong numbers in a run by mpirun: one decision on all ranks, the place in words, going back, and nothing
// that is not finite in any checkpoint.
#include <gtest/gtest.h>

#include <cmath>

#include "src/io/file.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

const std::vector<std::string> grid = {"--parallel.pipeline", "2", "--batch.global", "8",
                                       "--train.steps",       "12"};

ProgramResult train(const TinyRun& run, const std::string& faults, std::vector<std::string> more = {}) {
  std::vector<std::string> words = {run.config()};
  words.insert(words.end(), grid.begin(), grid.end());
  words.insert(words.end(), more.begin(), more.end());
  return run_program(command(4, words), {"OMP_NUM_THREADS=1", "PTRAIN_FAULT=" + faults});
}

/// The losses as they were written, of step 1 on.
std::vector<std::string> losses_of(const TinyRun& run) {
  std::vector<std::string> losses;
  const std::string text = read_text(run.output() / "metrics.jsonl", 1 << 24);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    losses.push_back(parse_json(std::string_view(text).substr(begin, end - begin), "metrics")["loss"].dump());
    begin = end + 1;
  }
  return losses;
}

/// Every number of every checkpoint's weights, which with f32 files are the masters.
void expect_finite_checkpoints(const TinyRun& run, int at_least) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(run.output() / "checkpoints")) {
    ++found;
    EXPECT_EQ(ptrain_on(1, {"inspect", entry.path(), "--verify"}).code, 0) << entry.path();
    const HfDir checkpoint = HfDir::open(entry.path());
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      const OwnedTensor values(tensor.shape, DType::f32);
      checkpoint.read_box(tensor.name, whole(tensor.shape), values.view);
      EXPECT_TRUE(std::ranges::all_of(values.view.span<float>(), [](float x) { return std::isfinite(x); }))
          << tensor.name;
    }
  }
  EXPECT_GE(found, at_least);
}

TEST(JudgeProgram, ABadStepIsSkippedAndItsRankTensorAndDocumentsAreNamed) {
  for (const char* action : {"nan", "inf", "huge"}) {
    const TinyRun run;
    const ProgramResult result = train(run, fmt::format("{}@gradient:rank2:step5", action),
                                       {"--checkpoint.every", "1", "--checkpoint.keep", "20"});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(times_in("skipped: not finite", result.out), 1) << result.out;
    EXPECT_EQ(times_in("ptrain: rank 0: warning: step 5: loss ", result.err), 1) << result.err;
    EXPECT_EQ(times_in(" not finite; first the gradient of ", result.err), 1) << result.err;
    // Rows 33 to 36 of the file: the first half of the fifth eight is data rank 0's, to which rank 2 belongs.
    for (int line = 33; line <= 36; ++line)
      EXPECT_EQ(times_in(fmt::format("{}:{}", run.rows().string(), line), result.err), 1) << result.err;
    EXPECT_EQ(times_in(" on rank 2 (host ", result.err), 1) << result.err;
    EXPECT_EQ(times_in("goes back", result.err), 0) << result.err;
    EXPECT_EQ(losses_of(run).size(), 12u);
    expect_finite_checkpoints(run, 11);  // none while step 5 was in doubt
    EXPECT_FALSE(std::filesystem::exists(run.output() / "checkpoints" / "step-00000005"));
  }
}

TEST(JudgeProgram, ThreeInARowGoBackToTheSnapshotAndPastTheirRows) {
  const std::string faults = "nan@gradient:rank2:step7,inf@gradient:rank1:step8,huge@gradient:rank0:step9";
  const TinyRun skipping, going_back;
  const ProgramResult skipped = train(skipping, faults, {"--train.max_bad_steps", "4"});
  EXPECT_EQ(skipped.code, 0) << skipped.err;
  EXPECT_EQ(times_in("skipped: not finite", skipped.out), 3) << skipped.out;

  const ProgramResult back = train(going_back, faults, {"--checkpoint.every", "4", "--checkpoint.keep", "9"});
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(
      times_in("3 steps in a row were not finite: goes back from step 9 to step 4, by the copy in memory",
               back.err),
      1)
      << back.err;
  EXPECT_EQ(times_in("skipped: its rows are passed over", back.out), 3) << back.out;
  for (int step : {5, 6}) EXPECT_EQ(times_in(fmt::format("step {}/12", step), back.out), 2) << back.out;
  // Steps 5 and 6 again, then past 7, 8 and 9: the same weights, so the same bits from there.
  const std::vector<std::string> one = losses_of(skipping), other = losses_of(going_back);
  ASSERT_EQ(one.size(), 12u);
  ASSERT_EQ(other.size(), 12u) << "rows of the steps that were taken back are gone";
  for (size_t i : {0, 1, 2, 3, 4, 5, 9, 10, 11}) EXPECT_EQ(one[i], other[i]) << "step " << i + 1;
  for (size_t i : {6, 7, 8}) EXPECT_EQ(other[i], "null");
  expect_finite_checkpoints(going_back, 2);
}

TEST(JudgeProgram, WhatNoDiskCouldTakeIsGoneBackToInMemory) {
  const std::string numbers = "nan@gradient:rank2:step7,inf@gradient:rank1:step8,huge@gradient:rank0:step9";
  const TinyRun without_disk, without_copy;
  const std::vector<std::string> saving = {"--checkpoint.every", "4", "--checkpoint.keep", "9"};
  const ProgramResult memory = train(without_disk, "eio@mid_write:rank1:step4," + numbers, saving);
  EXPECT_EQ(memory.code, 0) << memory.err;
  EXPECT_EQ(times_in("step 4 is not saved", memory.err), 1) << memory.err;
  EXPECT_EQ(times_in("goes back from step 9 to step 4, by the copy in memory", memory.err), 1) << memory.err;
  EXPECT_FALSE(std::filesystem::exists(without_disk.output() / "checkpoints" / "step-00000004"));

  std::vector<std::string> waiting = saving;
  waiting.insert(waiting.end(), {"--checkpoint.asynchronous", "false"});
  const ProgramResult files = train(without_copy, numbers, waiting);
  EXPECT_EQ(files.code, 0) << files.err;
  EXPECT_EQ(times_in("goes on after step 4 from ", files.err), 1) << files.err;
  EXPECT_EQ(losses_of(without_disk), losses_of(without_copy));
  expect_finite_checkpoints(without_disk, 2);
}

TEST(JudgeProgram, AFaultThatComesAgainEndsTheRunWith64) {
  const TinyRun run;
  const ProgramResult result = train(run, "nan@gradient:rank3");
  EXPECT_EQ(result.code, 64) << result.err;
  EXPECT_EQ(times_in("goes back from step 3 to step 0", result.err), 1) << result.err;
  EXPECT_EQ(times_in("error: step 6: loss ", result.err), 1) << result.err;
  const Json failure = read_json(run.output() / "failure.json");
  EXPECT_EQ(failure["exit_code"], 64);
  EXPECT_EQ(failure["step"], 6);
  const auto reason = failure["reason"].get<std::string>();
  for (const char* text : {"first the gradient of ", " on rank 3 (host ", "train.jsonl:45"})
    EXPECT_EQ(times_in(text, reason), 1) << reason;
  EXPECT_FALSE(std::filesystem::exists(run.output() / "checkpoints"));

  const TinyRun at_once;
  const ProgramResult first = train(at_once, "nan@gradient:rank3", {"--train.max_bad_steps", "0"});
  EXPECT_EQ(first.code, 64) << first.err;
  EXPECT_EQ(times_in("error: step 1: loss ", first.err), 1) << first.err;
}

}  // namespace
}  // namespace ptrain
