#include "src/train/crash_loop.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

NotedStart start_at(int64_t step, const std::string& run = "a") {
  return {.step = step, .run = run, .host = "h", .time = 5};
}

TEST(CrashLoop, CountsTheLastStartsFromTheSameStepAsTheSameRun) {
  struct Case {
    std::vector<NotedStart> starts;
    int64_t step;
    const char* run;
    int64_t count;
  };
  for (const Case& c : std::vector<Case>{
           {{}, 0, "a", 0},
           {{start_at(0)}, 0, "a", 1},
           {{start_at(0)}, 500, "a", 0},  // progress
           {{start_at(0)}, 0, "b", 0},    // another configuration
           {{start_at(0), start_at(0), start_at(0)}, 0, "a", 3},
           {{start_at(0), start_at(500), start_at(500)}, 500, "a", 2},
           {{start_at(500), start_at(500), start_at(0)}, 500, "a", 0},  // not in a row
           {{start_at(5), start_at(5, "b"), start_at(5)}, 5, "a", 1},
       })
    EXPECT_EQ(fruitless_starts(c.starts, c.step, c.run), c.count);
}

TEST(CrashLoop, TheFourthStartWithoutProgressIsRefusedWithTheLastWords) {
  const TemporaryDirectory output;
  for (int i = 0; i < 3; ++i) {
    RestartNotes(output.path()).begin(start_at(40), 3);
    if (i == 1)
      std::ofstream(output.path() / "failure.json")
          << R"({"rank": 2, "host": "h9", "phase": "training", "step": 43, "reason": "loss nan", "exit_code": 64})";
    if (i == 2) std::filesystem::remove(output.path() / "failure.json");  // the third is killed
  }
  const auto refusal = [&](const NotedStart& start, int64_t most) -> std::string {
    try {
      RestartNotes notes(output.path());
      notes.begin(start, most);
      notes.withdraw();
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::no_progress);
      return error.what();
    }
  };
  const std::string text = refusal(start_at(40), 3);
  for (const char* part : {"3 starts in a row went on from step 40", "left no word", "restarts.json"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_EQ(RestartNotes(output.path()).starts()[1].failure["reason"], "loss nan");
  EXPECT_EQ(refusal(start_at(40), 0), "") << "no limit";
  EXPECT_EQ(refusal(start_at(40), 4), "");
  EXPECT_EQ(refusal(start_at(80), 3), "") << "progress";

  // Its own refusal is not taken for the end of the start before it once that has left a word.
  std::filesystem::remove(output.path() / "restarts.json");
  RestartNotes(output.path()).begin(start_at(0), 1);
  std::ofstream(output.path() / "failure.json")
      << R"({"rank": 2, "host": "h9", "phase": "training", "step": 43, "reason": "loss nan", "exit_code": 64})";
  for (int i = 0; i < 2; ++i) {
    const std::string again = refusal(start_at(0), 1);
    EXPECT_NE(again.find("exit code 64 on rank 2 (host h9), training, step 43: loss nan"), std::string::npos)
        << again;
    std::ofstream(output.path() / "failure.json") << R"({"reason": "1 starts in a row", "exit_code": 67})";
  }
}

TEST(CrashLoop, AnOrderlyEndAndAUsersErrorLeaveNothing) {
  const TemporaryDirectory output;
  RestartNotes(output.path()).begin(start_at(0), 3);
  {
    RestartNotes notes(output.path());
    notes.begin(start_at(0), 3);
    notes.withdraw();
  }
  EXPECT_EQ(RestartNotes(output.path()).starts(), std::vector{start_at(0)});
  RestartNotes notes(output.path());
  notes.begin(start_at(0), 3);
  notes.end();
  EXPECT_TRUE(RestartNotes(output.path()).starts().empty());
  EXPECT_FALSE(std::filesystem::exists(output.path() / "restarts.json"));
}

TEST(CrashLoop, ADamagedFileIsAsNone) {
  for (const char* text : {"", "{", "[]", R"({"starts": [{"step": "x"}]})", R"({"starts": 7})"}) {
    const TemporaryDirectory output;
    std::ofstream(output.path() / "restarts.json") << text;
    RestartNotes notes(output.path());
    EXPECT_TRUE(notes.starts().empty()) << text;
    notes.begin(start_at(3), 1);
    EXPECT_EQ(RestartNotes(output.path()).starts(), std::vector{start_at(3)}) << text;
  }
}

}  // namespace
}  // namespace ptrain
