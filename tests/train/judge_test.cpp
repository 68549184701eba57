// Whole runs as words: what became of each step on the left, what the run does on the right.
#include "src/train/judge.h"

#include <gtest/gtest.h>

#include <string>

namespace ptrain {
namespace {

/// Plays a run whose steps 1, 2, … have the outcomes u updated, n not finite, o overflow of the loss scale,
/// e without supervision, s updated and then a snapshot. Returns g go on, k skip, r rewind, x stop. After a
/// rewind the word goes on with the steps that come then: it tells time, not steps.
std::string played(std::string_view outcomes, int64_t most_in_a_row) {
  Judge judge(most_in_a_row);
  std::string verdicts;
  int64_t step = 0;
  for (char c : outcomes) {
    ++step;
    const Outcome outcome = c == 'n'   ? Outcome::not_finite
                            : c == 'o' ? Outcome::scale_overflow
                            : c == 'e' ? Outcome::no_supervision
                                       : Outcome::updated;
    verdicts += "gkrx"[static_cast<size_t>(judge.judge(step, outcome))];
    if (c == 's') judge.note_snapshot(step);
  }
  return verdicts;
}

TEST(Judge, SkipsThenRewindsThenStops) {
  struct Case {
    const char *outcomes, *verdicts;
    int64_t most_in_a_row;
  };
  for (const Case& c : {
           Case{"uuuu", "gggg", 3},
           {"unu", "gkg", 3},            // one bad step is skipped
           {"nnunnu", "kkgkkg", 3},      // not in a row
           {"nnn", "kkr", 3},            // three are
           {"nnoen", "kkggr", 3},        // what says nothing of the model does not break a row
           {"ooooooo", "ggggggg", 1},    // fp16 that looks for its scale
           {"nnnuunnn", "kkrggkkx", 3},  // again after the rewind
           {"nnnnnn", "kkrkkx", 3},      // at once again
           {"nnnuunnu", "kkrggkkg", 3},  // fewer than a row after the rewind
           {"nnnusnnn", "kkrggkkr", 3},  // a snapshot later on: that is another place to go back to
           {"nn", "rx", 1},
           {"un", "gx", 0},  // no skips allowed
       }) {
    EXPECT_EQ(played(c.outcomes, c.most_in_a_row), c.verdicts) << c.outcomes;
  }
}

TEST(Judge, PassesOverTheRowsOfTheStepsThatMadeItGoBack) {
  Judge judge(2);
  for (int64_t step : {5, 6}) judge.judge(step, Outcome::updated);
  EXPECT_EQ(judge.judge(7, Outcome::not_finite), Verdict::skip);
  EXPECT_TRUE(judge.is_in_doubt());
  EXPECT_FALSE(judge.passes_over(7)) << "not before the run has gone back";
  EXPECT_EQ(judge.judge(8, Outcome::not_finite), Verdict::rewind);
  EXPECT_EQ(judge.bad_steps(), (std::vector<int64_t>{7, 8}));
  EXPECT_FALSE(judge.is_in_doubt());
  for (int64_t step = 1; step < 12; ++step) EXPECT_EQ(judge.passes_over(step), step == 7 || step == 8);
  // The way back leads over steps before the bad ones: snapshots of those are no progress.
  judge.note_snapshot(6);
  judge.judge(9, Outcome::not_finite);
  EXPECT_EQ(judge.judge(10, Outcome::not_finite), Verdict::stop);
  EXPECT_EQ(judge.bad_steps(), (std::vector<int64_t>{9, 10}));
}

TEST(Judge, AStateThatIsNotFiniteGoesBackOnceToo) {
  Judge judge(3);
  judge.judge(9, Outcome::updated);
  EXPECT_EQ(judge.judge_damaged_state(9), Verdict::rewind);
  for (int64_t step = 1; step < 12; ++step) EXPECT_FALSE(judge.passes_over(step)) << "no rows are to blame";
  judge.judge(9, Outcome::updated);
  EXPECT_EQ(judge.judge_damaged_state(9), Verdict::stop);
}

}  // namespace
}  // namespace ptrain
