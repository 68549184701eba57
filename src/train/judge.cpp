#include "src/train/judge.h"

#include <algorithm>
#include <utility>

namespace ptrain {

Verdict Judge::rewind_or_stop() {
  bad_steps_ = std::exchange(bad_, {});
  if (rewound_from_ > 0 || most_in_a_row_ == 0) return Verdict::stop;
  passed_over_.insert(bad_steps_.begin(), bad_steps_.end());
  return Verdict::rewind;
}

Verdict Judge::judge(int64_t step, Outcome outcome) {
  switch (outcome) {
    case Outcome::updated:
      bad_.clear();
      return Verdict::go_on;
    case Outcome::no_supervision:
    case Outcome::scale_overflow:
    case Outcome::passed_over:
      return Verdict::go_on;  // says nothing of the model
    case Outcome::not_finite:
      break;
  }
  bad_.push_back(step);
  if (std::ssize(bad_) < most_in_a_row_) return Verdict::skip;
  const Verdict verdict = rewind_or_stop();
  if (verdict == Verdict::rewind) rewound_from_ = step;
  return verdict;
}

Verdict Judge::judge_damaged_state(int64_t step) {
  const Verdict verdict = rewind_or_stop();
  if (verdict == Verdict::rewind) rewound_from_ = step;
  return verdict;
}

void Judge::note_snapshot(int64_t step) {
  if (step > rewound_from_) rewound_from_ = 0;
}

}  // namespace ptrain
