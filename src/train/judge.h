// What a run does about steps whose numbers are not finite: a pure state machine over what became of the
// steps. All ranks play it on the same outcomes, so they decide alike. Not for who is to blame
// (trainer_fault) nor for going back (run_judge).
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "src/train/metrics.h"

namespace ptrain {

enum class Verdict {
  go_on,
  skip,    // the step changed nothing; go on with the next one
  rewind,  // go back to the last snapshot, and from there past the rows of the bad steps
  stop,    // going back has not helped: leave with ExitCode::numerical
};

/// A step that is not finite is skipped: the trainer has left everything as it was. Where `most_in_a_row` of
/// them follow each other something is wrong with more than one batch: weights or moments have been damaged,
/// or the run has left the range of its numbers. The run then goes back to its last snapshot, once, and
/// trains again from there; the rows of those steps are passed over. If as many bad steps come again before a
/// newer snapshot was taken, it stops. With most_in_a_row 0 it stops at the first bad step.
///
/// Example, most_in_a_row 2, snapshot of step 4: steps 7 and 8 bad -> rewind; 5, 6 trained anew, 7 and 8
/// passed over, then 9; two more bad ones -> stop.
class Judge {
 public:
  explicit Judge(int64_t most_in_a_row) : most_in_a_row_(most_in_a_row) {}

  Verdict judge(int64_t step, Outcome outcome);
  /// To be called when a snapshot of the state after `step` is there to go back to.
  void note_snapshot(int64_t step);
  /// Weights or moments after `step`, about to be saved, are not finite: rewind, or stop if that has been
  /// tried.
  Verdict judge_damaged_state(int64_t step);

  /// The step is one of those that made the run go back: its rows are not trained on.
  bool passes_over(int64_t step) const { return passed_over_.contains(step); }
  /// The last step was bad. A snapshot of now would be no place to go back to.
  bool is_in_doubt() const { return !bad_.empty(); }
  /// The bad steps that led to the last verdict of rewind or stop.
  const std::vector<int64_t>& bad_steps() const { return bad_steps_; }

 private:
  Verdict rewind_or_stop();

  int64_t most_in_a_row_;
  std::vector<int64_t> bad_, bad_steps_;  // in a row until now; those of the last verdict
  std::set<int64_t> passed_over_;
  int64_t rewound_from_ = 0;  // the last step before going back; 0: has not gone back since a snapshot
};

}  // namespace ptrain
