// A wrong configuration, model or file of rows as a row of a table: how it is broken, how ptrain is started
// on it, and what it must say. Not for machines and shells: bad_environment_test.cpp.
#pragma once

#include <cstdio>
#include <span>

#include "tests/launch/broken_run.h"
#include "tests/launch/wrong_page.h"

namespace ptrain {

using Break = void (*)(const TinyRun&);

struct WrongConfiguration {
  const char* what;
  Break breaks;                    // may be null
  std::vector<std::string> words;  // behind the configuration
  int code;
  std::vector<std::string> says;  // fragments of stderr, each once; {root} stands for the test's directory
  std::vector<int> ranks = {1, 4};
  const char* verb = "";
  const char* shown_code = nullptr;  // on the page, where it depends on the build
};

inline std::string with_root(std::string text, const TinyRun& run) {
  const size_t at = text.find("{root}");
  return at == std::string::npos ? text : text.replace(at, 6, run.root().string());
}

inline std::vector<std::string> words_of(const WrongConfiguration& wrong, const TinyRun& run) {
  std::vector<std::string> words;
  if (wrong.verb == std::string("eval")) {
    words = {"eval", "--model", run.model(), "--data", run.rows()};
  } else if (wrong.verb == std::string("generate")) {
    words = {"generate", "--model", run.model()};
  } else if (*wrong.verb != '\0') {
    words = {wrong.verb, run.config()};
  } else {
    words = {run.config()};
  }
  for (const std::string& word : wrong.words) words.push_back(with_root(word, run));
  return words;
}

/// Each ends with its code and one message, on all its numbers of ranks.
inline void expect_rows(std::span<const WrongConfiguration> table) {
  double slowest = 0;
  for (const WrongConfiguration& wrong : table) {
    for (int ranks : wrong.ranks) {
      SCOPED_TRACE(fmt::format("{} on {} ranks", wrong.what, ranks));
      const TinyRun run;
      if (wrong.breaks != nullptr) wrong.breaks(run);
      const ProgramResult result = ptrain_on(ranks, words_of(wrong, run));
      EXPECT_EQ(result.code, wrong.code) << result.err;
      EXPECT_EQ(times_in("error: ", result.err), 1) << result.err;
      for (const std::string& text : wrong.says)
        EXPECT_EQ(times_in(with_root(text, run), result.err), 1) << text << "\n" << result.err;
      EXPECT_EQ(result.out.find("step 1/"), std::string::npos) << "it trained: " << result.out;
      EXPECT_EQ(processes_left(run.root()), 0) << "ranks are left behind";
      EXPECT_LT(result.seconds, 20) << "ten times what it should take";
      if (ranks == 1) slowest = std::max(slowest, result.seconds);
    }
  }
  std::printf("the slowest of the single ranks took %.2f s\n", slowest);
}

inline void expect_on_page(const std::string& section, std::span<const WrongConfiguration> table) {
  std::vector<PageRow> rows;
  for (const WrongConfiguration& wrong : table) {
    rows.push_back({wrong.what, wrong.shown_code != nullptr ? wrong.shown_code : std::to_string(wrong.code),
                    shown_message(wrong.says)});
  }
  expect_on_page(section, {"what is wrong", "exit code", "what is said"}, rows);
}

}  // namespace ptrain
