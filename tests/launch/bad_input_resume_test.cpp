// What a run says of a checkpoint and of weights that are not its own, from outside.
#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/launch/broken_run.h"

namespace ptrain {
namespace {

TEST(RefusedStart, LeavesTheOutputOfTheRunBeforeAsItWas) {
  const TinyRun run;
  const std::vector<std::string> good = {run.config(), "--train.steps", "3", "--batch.global", "4"};
  ASSERT_EQ(ptrain_on(1, good).code, 0);
  const std::string config = read_text(run.output() / "config.yaml", 1 << 20);
  const std::string metrics = read_text(run.output() / "metrics.jsonl", 1 << 20);
  std::filesystem::copy(run.model(), run.root() / "other");
  Json other = read_json(run.root() / "other/config.json");
  other["rms_norm_eps"] = 1e-5;
  put(run.root() / "other/config.json", other.dump());
  std::filesystem::copy(run.rows(), run.root() / "more.jsonl");
  std::ofstream(run.root() / "more.jsonl", std::ios::app) << "{\"input_ids\": [1, 2]}\n";
  const struct {
    std::vector<std::string> words;
    std::vector<std::string> says;
  } changes[] = {
      {{"--train.seed", "7"}, {"train.seed: ", "with 1, now it is 7"}},
      {{"--batch.global", "8"}, {"batch.global: ", "with 4, now it is 8"}},
      {{"--data.sequence_length", "20"}, {"data.sequence_length: ", "with 19, now it is 20"}},
      {{"--model.path", run.root() / "other"}, {"model: ", run.model().string() + " (", "/other ("}},
      {{"--data.train", run.root() / "more.jsonl"}, {"data: ", "120 documents", "121 documents"}},
      {{"--model.init", "random"}, {"model"}},
  };
  for (const auto& change : changes) {
    for (int ranks : {1, 4}) {
      std::vector<std::string> words = good;
      words.insert(words.end(), change.words.begin(), change.words.end());
      const ProgramResult result = ptrain_on(ranks, words);
      EXPECT_EQ(result.code, 2) << result.err;
      EXPECT_EQ(times_in("error: ", result.err), 1) << result.err;
      for (const std::string& text : change.says)
        EXPECT_GE(times_in(text, result.err), 1) << text << result.err;
      EXPECT_EQ(times_in("the checkpoint of step 3 was made with", result.err), 1) << result.err;
    }
  }
  EXPECT_EQ(read_text(run.output() / "config.yaml", 1 << 20), config);
  EXPECT_EQ(read_text(run.output() / "metrics.jsonl", 1 << 20), metrics);

  const ProgramResult again = ptrain_on(4, good);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.out, "");
  EXPECT_EQ(times_in("already done: the model lies in " + (run.output() / "model").string(), again.err), 1);
  EXPECT_EQ(read_text(run.output() / "metrics.jsonl", 1 << 20), metrics);
}

TEST(RefusedStart, AMissingTensorIsAnErrorAndOneTooManyAWarningSaidOnce) {
  const TinyRun wrong_name;
  Json header = parse_json(header_of(wrong_name.model() / "model.safetensors"), "header");
  header["model.norm.wight"] = header["model.norm.weight"];
  header.erase("model.norm.weight");
  put_header(wrong_name, header.dump());
  const ProgramResult missing = ptrain_on(1, {wrong_name.config(), "--train.steps", "1"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_EQ(times_in("1 tensor is missing in the safetensors files: model.norm.weight", missing.err), 1)
      << missing.err;

  const TinyRun deeper;
  deeper.set("num_hidden_layers", 3);
  const ProgramResult left_out = ptrain_on(4, {deeper.config(), "--train.steps", "1", "--batch.global", "4"});
  EXPECT_EQ(left_out.code, 0) << left_out.err;
  EXPECT_EQ(times_in("9 tensors are left out", left_out.err), 1) << left_out.err;
}

}  // namespace
}  // namespace ptrain
