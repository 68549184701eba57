// ptrain plan from outside, on every configuration that the tree ships.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "tests/support/program.h"

namespace ptrain {
namespace {

const std::filesystem::path configs = std::filesystem::path(PTRAIN_SOURCE) / "configs";

ProgramResult plan(const std::string& config, const std::string& model, std::vector<std::string> more) {
  std::vector<std::string> words = {PTRAIN_PROGRAM, "plan", configs / config, "--model.path",
                                    configs / "models" / model};
  words.insert(words.end(), more.begin(), more.end());
  return run_program(words);
}

struct Shipped {
  const char* config;
  const char* model;
  const char* ranks;
  const char* mesh;
};

TEST(PlanVerb, PrintsEveryShippedConfigurationForItsRanks) {
  const std::vector<Shipped> all = {
      {"llama7b.yaml", "llama-7b", "16", "16 ranks = tensor 4 x pipeline 2 x data 2"},
      {"llama13b.yaml", "llama-13b", "16", "16 ranks = "},
      {"llama70b.yaml", "llama-70b", "64", "64 ranks = "},
      {"demo.yaml", "demo", "8", "8 ranks = tensor 2 x pipeline 2 x data 2"},
      {"smollm2_135m.yaml", "smollm2-135m", "6", "6 ranks = tensor 3 x pipeline 2 x data 1"},
  };
  for (const Shipped& shipped : all) {
    const ProgramResult result =
        plan(shipped.config, shipped.model, {"--ranks", shipped.ranks, "--hardware", "h200"});
    EXPECT_EQ(result.code, 0) << shipped.config << ": " << result.err;
    for (const char* part : {shipped.mesh, "\nStages\n", "\nMemory of a rank", "\nSchedule 1f1b: bubble",
                             "\nSent by a rank", "\nOrder of communication: ", "\nEstimate on", "\nFits"}) {
      EXPECT_NE(result.out.find(part), std::string::npos) << shipped.config << ": no " << part;
    }
  }
}

TEST(PlanVerb, AThousandRanksTakeASecondOrTwo) {
  const ProgramResult result = plan("llama70b.yaml", "llama-70b",
                                    {"--ranks", "1024", "--parallel.pipeline", "16", "--parallel.tensor", "8",
                                     "--parallel.data", "auto", "--batch.global", "1024"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("1024 ranks = tensor 8 x pipeline 16 x data 8"), std::string::npos);
  EXPECT_LT(result.seconds, 20);  // ten times the goal
}

/// The options of the first change that is proposed.
std::vector<std::string> first_change(const std::string& text) {
  const size_t head = text.find("What would fit, with its price in time");
  if (head == std::string::npos) return {};
  std::istringstream line(text.substr(text.find('\n', head) + 1));
  std::vector<std::string> words;
  for (std::string key, value; line >> key && key.starts_with("--") && line >> value;) {
    words.push_back(key);
    words.push_back(value);
  }
  return words;
}

TEST(PlanVerb, SaysWhatWouldFitAndThatFits) {
  // The classic fine-tune with everything on every rank but the optimizer's shards.
  const std::vector<std::string> words = {"--ranks",           "16", "--hardware",          "a100-40",
                                          "--parallel.tensor", "1",  "--parallel.pipeline", "1",
                                          "--parallel.data",   "16"};
  const ProgramResult result = plan("llama7b.yaml", "llama-7b", words);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("\nDOES NOT FIT: "), std::string::npos) << result.out;
  const std::vector<std::string> change = first_change(result.out);
  ASSERT_FALSE(change.empty()) << result.out;
  std::vector<std::string> changed = words;
  changed.insert(changed.end(), change.begin(), change.end());
  const ProgramResult again = plan("llama7b.yaml", "llama-7b", changed);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("\nFits: "), std::string::npos) << again.out;
}

TEST(PlanVerb, AThousandRanksAreSearchedForWhatFitsInASecondOrTwo) {
  const ProgramResult result =
      plan("llama70b.yaml", "llama-70b",
           {"--ranks", "1024", "--parallel.tensor", "1", "--parallel.pipeline", "1", "--parallel.data",
            "auto", "--batch.global", "1024", "--hardware", "l4"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("\nWhat would fit, with its price in time"), std::string::npos) << result.out;
  EXPECT_LT(result.seconds, 20);  // ten times the goal
}

TEST(PlanVerb, WhereNothingFitsItSaysHowManyRanksWould) {
  const ProgramResult result = plan("llama70b.yaml", "llama-70b",
                                    {"--ranks", "8", "--parallel.tensor", "8", "--parallel.pipeline", "1",
                                     "--parallel.data", "1", "--hardware", "a10g"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("ranks of a10g would do: --ranks "), std::string::npos) << result.out;
}

TEST(PlanVerb, TellsWhatInstancesWouldCostAtThePricesGiven) {
  const TemporaryDirectory directory;
  const std::string file = directory.path() / "prices.yaml";
  std::ofstream(file) << "p4d.24xlarge: 10\nml.g5.48xlarge: 4\n";
  const std::vector<std::string> words = {"--ranks", "16", "--prices", file};
  const ProgramResult result = plan("llama7b.yaml", "llama-7b", words);
  EXPECT_EQ(result.code, 0) << result.err;
  for (const char* part : {"\nBuying guide: ", "by the cost of 1,000,000,000 tokens", "2 x p4d.24xlarge",
                           "16 x a100-40", "ml.g5.48xlarge", "x a10g"}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
  }
  std::vector<std::string> epoch = words;
  epoch.insert(epoch.end(), {"--tokens", "50000000"});
  EXPECT_NE(plan("llama7b.yaml", "llama-7b", epoch).out.find("by the cost of an epoch of 50,000,000 tokens"),
            std::string::npos);
  std::vector<std::string> steps = words;
  steps.insert(steps.end(), {"--train.steps", "100"});
  EXPECT_NE(plan("llama7b.yaml", "llama-7b", steps).out.find("by the cost of 100 steps, 9,830,400 tokens"),
            std::string::npos);
}

TEST(PlanVerb, DrawsTheScheduleIntoAFile) {
  const TemporaryDirectory directory;
  const std::string file = directory.path() / "schedule.svg";
  const ProgramResult result = plan("llama7b.yaml", "llama-7b", {"--ranks", "16", "--svg", file});
  EXPECT_EQ(result.code, 0) << result.err;
  std::ifstream stream(file);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  EXPECT_TRUE(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
}

struct Refused {
  std::vector<std::string> words;
  const char* says;
};

TEST(PlanVerb, RefusesWhatCannotBeWithTheValues) {
  const std::vector<Refused> all = {
      {{}, "--ranks is missing"},
      {{"--ranks", "0"}, "--ranks"},
      {{"--ranks", "12"}, "4 * 2 * 2 = 16, but --ranks says 12 ranks"},
      {{"--ranks", "12", "--parallel.tensor", "3"}, "32 attention heads, which parallel.tensor = 3"},
      {{"--ranks", "48", "--parallel.tensor", "1", "--parallel.pipeline", "48", "--parallel.data", "1"},
       "48 stages, but the model has 32 blocks"},
      {{"--ranks", "16", "--batch.global", "7"}, "not a multiple of micro * data = 1 * 2 = 2"},
      {{"--ranks", "16", "--hardware", "h300"}, "choose one of h200, h100"},
      {{"--ranks", "16", "--tokens", "5"}, "--tokens says what --prices counts"},
      {{"--ranks", "16", "--parallel.virtual_stages", "2"},
       "--parallel.virtual_stages = 2 needs parallel.schedule interleaved"},
      {{"--ranks", "16", "--parallel.schedule", "zero_bubble", "--parallel.virtual_stages", "3"},
       "two, there and back (ZB-V); set it to 2"},
      {{"--ranks", "16", "--parallel.schedule", "zero_bubble", "--train.recompute", "full"},
       "set it to none, or parallel.schedule to 1f1b"},
      {{"--ranks", "16", "--parallel.schedule", "zero_bubble", "--parallel.zero", "3"},
       "set it to 1, or parallel.schedule to 1f1b"},
      {{"--ranks", "16", "--train.deterministic", "grid", "--parallel.zero", "2"},
       "32 micro-batches a step on each data rank"},
      {{"--ranks", "16", "--train.deterministic", "grid", "--batch.global", "48"},
       "set batch.micro to 3, or batch.global to 32 or 64"},
  };
  for (const Refused& refused : all) {
    const ProgramResult result = plan("llama7b.yaml", "llama-7b", refused.words);
    EXPECT_EQ(result.code, 2) << refused.says;
    EXPECT_EQ(result.out, "") << refused.says;
    EXPECT_NE(result.err.find(refused.says), std::string::npos) << result.err;
    EXPECT_LT(result.seconds, 5);
  }
}

}  // namespace
}  // namespace ptrain
