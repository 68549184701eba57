// Training from and to S3, from outside: begun from it, gone on with from it, and what is said when it fails.
#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/manifest.h"
#include "tests/launch/tiny_run.h"
#include "tests/support/fake_s3.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class CloudProgram : public ::testing::Test {
 protected:
  CloudProgram() { run_.configure("checkpoint: {every: 4, upload: s3://b/runs/x}\nbatch: {global: 8}\n"); }

  ProgramResult train(int ranks, int steps, const Words& more = {}, const Words& variables = {}) const {
    Words words = {run_.config().string(), "--train.steps", std::to_string(steps), "--optimizer.schedule",
                   "constant"};  // a run of more steps has the same rates
    words.insert(words.end(), more.begin(), more.end());
    Words environment = {"OMP_NUM_THREADS=1", "PATH=" + fake_.search_path() + ":/usr/bin:/bin"};
    environment.insert(environment.end(), variables.begin(), variables.end());
    return run_program(command(ranks, words), environment);
  }
  fs::path remote(const std::string& name) const { return fake_.object("b/runs/x/" + name); }

  int calls_of(const std::string& begin) const {
    int count = 0;
    for (const std::string& call : fake_.calls()) count += call.starts_with(begin);
    return count;
  }
  /// The losses of metrics.jsonl, as they stand there.
  Words losses() const {
    Words values;
    std::ifstream file(run_.output() / "metrics.jsonl");
    for (std::string line; std::getline(file, line);)
      values.push_back(parse_json(line, "row")["loss"].dump());
    return values;
  }
  static void expect_same_files(const fs::path& here, const fs::path& there) {
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(here)) {
      if (!entry.is_regular_file()) continue;
      ++files;
      const fs::path other = there / fs::relative(entry.path(), here);
      ASSERT_TRUE(fs::exists(other)) << other;
      EXPECT_TRUE(read_text(entry.path(), 1 << 24) == read_text(other, 1 << 24)) << other;
    }
    EXPECT_GE(files, 2) << here;
  }

  const TinyRun run_;
  const FakeS3 fake_;
};

TEST_F(CloudProgram, CheckpointsAndTheModelArriveAndARunGoesOnFromThem) {
  const ProgramResult unbroken = train(2, 12, {"--checkpoint.upload", "null"});
  ASSERT_EQ(unbroken.code, 0) << unbroken.err;
  const Words all = losses();
  fs::remove_all(run_.output());

  const ProgramResult first = train(2, 8, {"--train.seed", "1"});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_NE(first.err.find("S3: by " + fake_.search_path() + "/s5cmd"), std::string::npos) << first.err;
  for (const char* step : {"step-00000004", "step-00000008"})
    expect_same_files(run_.output() / "checkpoints" / step, remote("checkpoints") / step);
  expect_same_files(run_.output() / "model", remote("model"));
  EXPECT_EQ(fake_.torn(), 0);

  fs::remove_all(run_.output());  // the disk is lost
  const ProgramResult second = train(2, 12);
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_NE(second.err.find("the checkpoint of step 8 came from s3://b/runs/x"), std::string::npos)
      << second.err;
  EXPECT_EQ(losses(), Words(all.begin() + 8, all.end())) << "bit by bit the unbroken run's";
  EXPECT_TRUE(fs::exists(remote("checkpoints/step-00000012/MANIFEST.json")));
}

TEST_F(CloudProgram, AModelAndRowsComeOnceForAllRanks) {
  fs::create_directories(fake_.object("b/in"));
  fs::copy(run_.model(), fake_.object("b/in/model"));
  fs::copy(run_.rows(), fake_.object("b/in/train.jsonl"));
  const Words from = {"--model.path",        "s3://b/in/model",     "--data.train",
                      "s3://b/in/tr*.jsonl", "--checkpoint.upload", "null"};
  const ProgramResult result = train(4, 3, from);
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(calls_of("down "), 3) << "config.json, model.safetensors, train.jsonl";
  const std::string written = read_text(run_.output() / "config.yaml", 1 << 20);
  EXPECT_NE(written.find("path: \"s3://b/in/model\""), std::string::npos) << written;
  const Words losses_from_s3 = losses();
  const ProgramResult again = train(2, 4, from);  // goes on; nothing is fetched again
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(calls_of("down "), 3);
  fs::remove_all(run_.output());
  ASSERT_EQ(train(4, 3, {"--checkpoint.upload", "null"}).code, 0);
  EXPECT_EQ(losses(), losses_from_s3);
}

TEST_F(CloudProgram, AFailedUploadIsAWarningFirstAndAnErrorAtTheEndAndMadeUpForLater) {
  fake_.set_plan(Words(1000, "denied"));
  const ProgramResult failed = train(1, 8);
  EXPECT_EQ(failed.code, 4) << failed.err;
  EXPECT_NE(failed.err.find("warning: checkpoints/step-00000004 is not uploaded"), std::string::npos)
      << failed.err;
  EXPECT_NE(failed.err.find("the training is done and all lies here"), std::string::npos) << failed.err;
  EXPECT_EQ(losses().size(), 8u);
  EXPECT_TRUE(fs::exists(run_.output() / "model/config.json"));
  EXPECT_TRUE(fs::exists(run_.output() / "failure.json"));

  fake_.set_plan({});
  const ProgramResult again = train(1, 8);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.err.find("already done"), std::string::npos) << again.err;
  expect_same_files(run_.output() / "model", remote("model"));
  expect_same_files(run_.output() / "checkpoints/step-00000008", remote("checkpoints/step-00000008"));
  const int sent = calls_of("up ");
  EXPECT_EQ(train(1, 8).code, 0);
  EXPECT_EQ(calls_of("up "), sent) << "all is there: nothing is sent again";
}

TEST_F(CloudProgram, WhatIsNotInS3YetIsNotDeletedHere) {
  fake_.set_plan(Words(1000, "denied"));
  const ProgramResult result = train(1, 7, {"--checkpoint.every", "1", "--checkpoint.keep", "1"});
  EXPECT_EQ(result.code, 4) << result.err;
  int here = 0;
  for (const auto& entry : fs::directory_iterator(run_.output() / "checkpoints"))
    here += entry.path().filename().string().starts_with("step-");
  EXPECT_GT(here, 1) << "keep alone would have left one";
  EXPECT_LE(here, 4) << "keep, and at most two and the newest more";
}

TEST_F(CloudProgram, NoProgramForS3IsToldBeforeAnythingElse) {
  const ProgramResult result =
      run_program(command(1, {run_.config().string()}), {"PATH=" + run_.root().string()});
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_NE(result.err.find("checkpoint.upload: S3 needs s5cmd, aws or rclone"), std::string::npos)
      << result.err;
}

TEST_F(CloudProgram, SecretsThatAProgramSaysAreNotRepeated) {
  const std::string secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY";
  fake_.set_plan(Words(1000, "leak"));
  const ProgramResult result = train(1, 4, {}, {"AWS_SECRET_ACCESS_KEY=" + secret});
  EXPECT_EQ(result.code, 4);
  EXPECT_NE(result.err.find("*** was refused"), std::string::npos) << result.err;
  EXPECT_EQ((result.out + result.err).find(secret), std::string::npos);
  for (const auto& entry : fs::recursive_directory_iterator(run_.output())) {
    if (entry.is_regular_file()) {
      EXPECT_EQ(read_text(entry.path(), 1 << 26).find(secret), std::string::npos) << entry.path();
    }
  }
}

TEST_F(CloudProgram, OtherVerbsSayThatAModelInS3MustComeHereFirst) {
  const ProgramResult result =
      run_program(command(1, {"generate", "--model", "s3://b/m", "--ids", "--prompt", "1"}));
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_NE(result.err.find("s5cmd cp"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace ptrain
