// Checkpoints of a run from outside, written while it goes on: their bits, slow and full disks.
#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/manifest.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Ten steps on four ranks, saved every four; `fault` for PTRAIN_FAULT.
ProgramResult train(const TinyRun& run, const std::vector<std::string>& more, const std::string& fault = "") {
  std::vector<std::string> words = {run.config(), "--train.steps",      "10", "--batch.global",
                                    "6",          "--parallel.tensor",  "2",  "--parallel.pipeline",
                                    "2",          "--checkpoint.every", "4",  "--checkpoint.keep",
                                    "9"};
  words.insert(words.end(), more.begin(), more.end());
  return run_program(command(4, words), {"OMP_NUM_THREADS=1", "PTRAIN_FAULT=" + fault});
}

fs::path checkpoint(const TinyRun& run, int step) {
  return run.output() / "checkpoints" / fmt::format("step-{:08}", step);
}

std::vector<Json> rows_of(const TinyRun& run) {
  std::ifstream file(run.output() / "metrics.jsonl");
  std::vector<Json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(parse_json(line, "metrics.jsonl"));
  return rows;
}

TEST(SaveProgram, BehindTheRunsBackTheSameBitsAreWrittenAsAtOnce) {
  const TinyRun at_once, behind;
  const ProgramResult a = train(at_once, {"--checkpoint.asynchronous", "false"}), b = train(behind, {});
  ASSERT_EQ(a.code, 0) << a.err;
  ASSERT_EQ(b.code, 0) << b.err;
  EXPECT_EQ(times_in("written while training goes on", a.err), 0) << a.err;
  EXPECT_EQ(times_in("written while training goes on", b.err), 1) << b.err;
  for (const int step : {4, 8, 10}) {
    const fs::path one = checkpoint(at_once, step), other = checkpoint(behind, step);
    EXPECT_EQ(read_text(one / "model.safetensors.index.json", 1 << 20),
              read_text(other / "model.safetensors.index.json", 1 << 20));
    for (const char* file : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"})
      EXPECT_EQ(read_text(one / file, 1 << 24), read_text(other / file, 1 << 24)) << step << " " << file;
    const Manifest manifest = open_manifest(other);
    EXPECT_EQ(to_json(manifest.tensors), to_json(open_manifest(one).tensors)) << step;  // CRCs of all extents
    EXPECT_EQ(manifest.step, step);
    EXPECT_EQ(manifest.run["position"]["epoch"], 0);
    EXPECT_EQ(manifest.run["position"]["rows_of_epoch"], 6 * step);
    EXPECT_EQ(manifest.run["position"]["seed"], 1);
    EXPECT_EQ(manifest.run["grid"]["tensor"], 2);
    EXPECT_EQ(manifest.run["configuration"].get<std::string>().size(), 16u);
  }
}

TEST(SaveProgram, ASaveSlowerThanTheIntervalIsWaitedForAndTheWaitIsCounted) {
  const TinyRun slow, unbroken;
  const ProgramResult result = train(slow, {}, "slow900@after_shard:rank1:step4");
  ASSERT_EQ(result.code, 0) << result.err;
  ASSERT_EQ(train(unbroken, {}).code, 0);
  EXPECT_GE(times_in("for the save under way", result.err), 1) << result.err;
  const std::vector<Json> rows = rows_of(slow), others = rows_of(unbroken);
  ASSERT_EQ(rows.size(), 10u);
  ASSERT_EQ(others.size(), 10u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i]["loss"], others[i]["loss"]);
  // Steps went on while rank 1 slept; who waited is the save of step 8, in the row behind it.
  double before = 0, behind = 0;
  for (const Json& row : rows)
    (row["step"] <= 8 ? before : behind) += row["checkpoint_stall_s"].get<double>();
  EXPECT_GT(behind, before);
  for (const int step : {4, 8, 10})
    EXPECT_EQ(ptrain_on(1, {"inspect", checkpoint(slow, step), "--verify"}).code, 0) << step;
}

TEST(SaveProgram, AFailedSaveIsSaidOnceTrainingGoesOnAndTheNextOneSucceeds) {
  const TinyRun run;
  const ProgramResult result = train(run, {}, "eio@mid_write:rank3:step4");
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(times_in("step 4 is not saved: ", result.err), 1) << result.err;
  EXPECT_EQ(times_in("Input/output error", result.err), 1) << result.err;
  EXPECT_EQ(times_in(" are free", result.err), 1) << result.err;
  EXPECT_FALSE(fs::exists(checkpoint(run, 4)));
  EXPECT_FALSE(fs::exists(run.output() / "checkpoints" / ".tmp-step-00000004"));
  for (const int step : {8, 10}) EXPECT_TRUE(fs::exists(checkpoint(run, step) / manifest_name));
  EXPECT_EQ(rows_of(run).size(), 10u);
}

TEST(SaveProgram, WhereTheLastSaveFailsTheRunHasFailed) {
  const TinyRun run;
  const ProgramResult result = train(run, {}, "eio@before_fsync:rank2:step10");
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_EQ(times_in("Input/output error", result.err), 1) << result.err;
  EXPECT_FALSE(fs::exists(checkpoint(run, 10)));
  EXPECT_TRUE(fs::exists(checkpoint(run, 8) / manifest_name));
  // The same command goes on from there.
  EXPECT_EQ(train(run, {}).code, 0);
  EXPECT_TRUE(fs::exists(checkpoint(run, 10) / manifest_name));
}

}  // namespace
}  // namespace ptrain
