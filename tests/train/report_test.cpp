// The report: what is read of a run's directory and what stands on the page.
#include "src/train/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "kernels/base/error.h"
#include "src/io/json.h"
#include "src/train/chart.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

std::string row(int step, double loss) {
  return Json{{"step", step},
              {"loss", loss},
              {"grad_norm", 2.0},
              {"lr", 1e-3},
              {"tokens_per_s", 1000.0 + step},
              {"step_s", 0.5},
              {"mfu", nullptr},
              {"peak_memory_bytes", 3 << 28},
              {"checkpoint_stall_s", 0.25}}
             .dump() +
         "\n";
}

/// A directory such as a run leaves it.
std::filesystem::path made_run(const std::filesystem::path& parent, const std::string& name, double loss,
                               const std::string& rate) {
  const std::filesystem::path run = parent / name;
  std::filesystem::create_directories(run);
  std::ofstream(run / "metrics.jsonl")
      << row(1, loss) << row(2, loss / 2) << R"({"step": 2, "eval_loss": 1.25, "eval_supervised_tokens": 10})"
      << "\n"
      << R"({"step": 3, "lo)";
  std::ofstream(run / "config.yaml") << "output: \"/x\"\n\noptimizer:\n  learning_rate: " << rate
                                     << "\n  schedule: cosine\n";
  return run;
}

TEST(Report, ReadsRowsEvaluationsAndKeysAndLeavesATornLineOut) {
  const TemporaryDirectory directory;
  const RunRecord run = read_run(made_run(directory.path(), "one", 4, "0.001"));
  EXPECT_EQ(run.name, "one");
  ASSERT_EQ(run.steps.size(), 2u);
  EXPECT_EQ(run.steps[1]["loss"], 2.0);
  ASSERT_EQ(run.evaluations.size(), 1u);
  const std::vector<std::pair<std::string, std::string>> keys = {
      {"output", "\"/x\""}, {"optimizer.learning_rate", "0.001"}, {"optimizer.schedule", "cosine"}};
  EXPECT_EQ(run.config, keys);
  EXPECT_TRUE(run.timeline.empty());
  EXPECT_FALSE(run.no_timeline.empty());
}

TEST(Report, AStepThatWasDoneAgainCountsOnce) {
  const TemporaryDirectory directory;
  const auto path = made_run(directory.path(), "one", 4, "0.001");
  std::ofstream(path / "metrics.jsonl") << row(1, 4) << row(2, 3) << row(2, 2.5);
  const RunRecord run = read_run(path);
  ASSERT_EQ(run.steps.size(), 2u);
  EXPECT_EQ(run.steps[1]["loss"], 2.5);
}

TEST(Report, AStrangersFileIsRefusedWithItsLine) {
  const TemporaryDirectory directory;
  const auto path = made_run(directory.path(), "one", 4, "0.001");
  std::ofstream(path / "metrics.jsonl") << row(1, 4) << "{\"epoch\": 1}\n";
  try {
    read_run(path);
    FAIL() << "was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find("metrics.jsonl:2"), std::string::npos) << error.what();
  }
  EXPECT_THROW(read_run(directory.path() / "none"), Error);
}

TEST(Report, ThePageHasALineForEachRunTheirTableAndWhatDiffers) {
  const TemporaryDirectory directory;
  const std::vector<RunRecord> runs = {read_run(made_run(directory.path(), "a<b", 4, "0.001")),
                                       read_run(made_run(directory.path(), "two", 6, "0.01"))};
  const std::string page = report_page(runs);
  EXPECT_NE(page.find("a&lt;b"), std::string::npos);
  EXPECT_EQ(page.find("a<b"), std::string::npos);
  EXPECT_NE(page.find("Loss, nats a supervised token"), std::string::npos);
  EXPECT_NE(page.find("class=\"line-1\""), std::string::npos);
  EXPECT_NE(page.find(">1.2500<"), std::string::npos);  // the best validation loss
  EXPECT_NE(page.find("<td>optimizer.learning_rate</td><td>0.001</td><td>0.01</td>"), std::string::npos);
  EXPECT_EQ(page.find("<td>optimizer.schedule</td><td>cosine</td><td>cosine</td>"), std::string::npos);
  EXPECT_EQ(page.find("Model FLOPs utilisation, %"), std::string::npos);  // nobody knows it: no empty chart
  for (const char* outside : {"http://", "https://", "src=", "<link"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
}

TEST(Chart, TicksAreRoundAndCover) {
  EXPECT_EQ(ticks_of(0.2, 9.7, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  for (const auto& [low, high] : {std::pair{-3.0, 17.0}, {0.0, 1e-7}, {1e9, 1.5e9}, {2.31, 2.32}}) {
    const std::vector<double> ticks = ticks_of(low, high, 5);
    EXPECT_LE(ticks.front(), low);
    EXPECT_GE(ticks.back(), high - 1e-9 * high);
    EXPECT_GE(ticks.size(), 3u);
    EXPECT_LE(ticks.size(), 8u);
  }
}

TEST(Chart, AThinnedLineKeepsItsSpikeAndGapsAreNotDrawn) {
  Chart chart{.title = "t", .unit = "", .lines = {{.name = "run", .x = {}, .y = {}}}};
  for (int i = 0; i < 100'000; ++i) {
    chart.lines[0].x.push_back(i);
    chart.lines[0].y.push_back(i == 54'321 ? 50.0 : 1.0);
  }
  const std::string svg = svg_of(chart);
  EXPECT_LT(svg.size(), 60'000u);
  EXPECT_NE(svg.find(" 30.0"), std::string::npos);  // the spike reaches the top
  chart.lines[0].x = {1, 2, 3, 4}, chart.lines[0].y = {1, std::nan(""), 2, 3};
  const std::string gap = svg_of(chart);
  const std::string path = gap.substr(gap.find(" d=\"M", gap.find("line-0")) + 4);
  EXPECT_EQ(std::ranges::count(path.substr(0, path.find('"')), 'M'), 2);
}

}  // namespace
}  // namespace ptrain
