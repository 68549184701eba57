// Tokens that data.special_tokens adds, from outside: the same numbers on two grids, the model that is
// written has them, a resume keeps them, and what does not go with them is refused.
#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/safetensors.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// The demo's model, a step trained, with weights of 257 rows; rows of text, and two tokens that it lacks.
class SpecialTokens : public testing::Test {
 protected:
  void SetUp() override {
    std::string rows;
    for (int i = 0; i < 12; ++i) rows += fmt::format("{{\"text\": \"{0}+{0}=[SEP]{1}[STOP]\"}}\n", i, 2 * i);
    put(root() / "rows.jsonl", rows);
    put(root() / "tokens.json", R"({"tokens": ["[SEP]", "[STOP]"]})");
    const ProgramResult base = ptrain_on(1, {configure("base", fixture("../../configs/models/demo")),
                                             "--model.init", "random", "--train.steps", "1"});
    ASSERT_EQ(base.code, 0) << base.err;
  }
  fs::path root() const { return directory_.path(); }
  fs::path model_of(const std::string& run) const { return root() / run / "model"; }

  std::string configure(const std::string& run, const fs::path& model,
                        const std::string& tokens = "null") const {
    const fs::path path = root() / (run + ".yaml");
    put(path, fmt::format("output: {0}/{1}\nmodel: {{path: {2}}}\n"
                          "data: {{train: [{0}/rows.jsonl], sequence_length: 64, special_tokens: {3}}}\n"
                          "batch: {{global: 2}}\noptimizer: {{warmup_steps: 0, learning_rate: 0.001}}\n"
                          "train: {{steps: 4}}\ncheckpoint: {{every: 2}}\nlog: {{tensorboard: false}}\n",
                          root().string(), run, model.string(), tokens));
    return path.string();
  }
  std::string with_tokens(const std::string& run) const {
    return configure(run, model_of("base"), (root() / "tokens.json").string());
  }
  std::vector<double> losses_of(const std::string& run) const {
    std::vector<double> losses;
    std::ifstream rows(root() / run / "metrics.jsonl");
    for (std::string line; std::getline(rows, line);)
      losses.push_back(parse_json(line, "metrics.jsonl").at("loss").get<double>());
    return losses;
  }

  TemporaryDirectory directory_;
};

TEST_F(SpecialTokens, AreTrainedOnAnyGridAndWrittenWithTheModel) {
  const ProgramResult alone = ptrain_on(1, {with_tokens("alone")});
  ASSERT_EQ(alone.code, 0) << alone.err;
  EXPECT_EQ(
      times_in("2 special tokens: [SEP] is 257, [STOP] is 258; the vocabulary grows from 257 to 259 rows",
               alone.err),
      1)
      << alone.err;
  const ProgramResult four =
      ptrain_on(4, {with_tokens("four"), "--parallel.tensor", "2", "--parallel.pipeline", "2"});
  ASSERT_EQ(four.code, 0) << four.err;
  const std::vector<double> expected = losses_of("alone"), found = losses_of("four");
  ASSERT_EQ(expected.size(), 4u);
  ASSERT_EQ(found.size(), 4u);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 5e-6 * expected[i]);

  const SafetensorsFile weights = SafetensorsFile::open(model_of("alone") / "model.safetensors");
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"})
    EXPECT_EQ(weights.find(name)->shape[0], 259) << name;
  EXPECT_EQ(read_json(model_of("four") / "config.json")["vocab_size"], 259);
  put(root() / "line.txt", "1=[SEP]2[STOP]\n");
  const ProgramResult ids =
      ptrain_on(1, {"tokenize", "--model", model_of("four").string(), (root() / "line.txt").string()});
  EXPECT_NE(ids.out.find(" 257 "), std::string::npos) << ids.out << ids.err;
  EXPECT_NE(ids.out.find(" 258"), std::string::npos) << ids.out;
  const ProgramResult eval = ptrain_on(
      1, {"eval", "--model", model_of("alone").string(), "--data", (root() / "rows.jsonl").string()});
  ASSERT_EQ(eval.code, 0) << eval.err;
  EXPECT_LT(parse_json(eval.out, "eval")["loss"].get<double>(), expected.front());
}

TEST_F(SpecialTokens, AResumeKeepsThemAndRefusesToGoOnWithout) {
  const std::string config = with_tokens("run");
  ASSERT_EQ(ptrain_on(1, {config, "--train.steps", "2"}).code, 0);
  const ProgramResult without = ptrain_on(1, {config, "--data.special_tokens", "null"});
  EXPECT_EQ(without.code, 2) << without.err;
  EXPECT_EQ(
      times_in(
          "data.special_tokens: the checkpoint of step 2 was made with [\"[SEP]\",\"[STOP]\"], now it is",
          without.err),
      1)
      << without.err;
  const ProgramResult with = ptrain_on(2, {config, "--parallel.tensor", "2"});
  ASSERT_EQ(with.code, 0) << with.err;
  EXPECT_EQ(losses_of("run").size(), 4u);
  EXPECT_EQ(times_in("goes on after step 2", with.err), 1) << with.err;
}

TEST_F(SpecialTokens, AreKnownToTheOtherVerbs) {
  const std::string config = with_tokens("run");
  const ProgramResult check = ptrain_on(1, {"check", config, "--one-step"});
  EXPECT_EQ(check.code, 0) << check.err;
  EXPECT_EQ(times_in("grows from 257 to 259 rows", check.out + check.err), 1) << check.out << check.err;
  const ProgramResult eval =
      ptrain_on(2, {"eval", "--model", model_of("base").string(), "--data", (root() / "rows.jsonl").string(),
                    "--data.special_tokens", (root() / "tokens.json").string()});
  EXPECT_EQ(eval.code, 0) << eval.err;
  EXPECT_EQ(ptrain_on(1, {"plan", config, "--ranks", "2"}).code, 0);
  const ProgramResult shown = ptrain_on(1, {"preprocess", config, "--show", "1"});
  EXPECT_NE(shown.out.find("[SEP]"), std::string::npos) << shown.out << shown.err;
  const ProgramResult generate =
      ptrain_on(1, {"generate", "--model", model_of("base").string(), "--prompt", "1",
                    "--data.special_tokens", (root() / "tokens.json").string()});
  EXPECT_EQ(generate.code, 2) << generate.err;
  EXPECT_EQ(times_in("tokens are added where a model is trained", generate.err), 1) << generate.err;
}

}  // namespace
}  // namespace ptrain
