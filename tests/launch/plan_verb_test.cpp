// ptrain plan from outside, on every configuration that the tree ships.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

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
                             "\nSent by a rank", "\nEstimate on", "\nFits"}) {
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
