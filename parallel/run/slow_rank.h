// Finds a rank that computes clearly slower than its peers, from how long ranks compute in a step, waiting
// not counted. Pure. Not for a rank that stands still: that is a hang.
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

namespace ptrain {

/// Steps that are judged together: their median, so that a few slow ones (a checkpoint, a page fault, another
/// process) say nothing.
inline constexpr int slow_rank_window = 20;

/// A rank's times of its last steps.
class StepTimes {
 public:
  void add(double computed_s);  // not a number: the step is not known and does not count
  int64_t steps() const { return steps_; }
  double median_s() const;  // of the last slow_rank_window steps; 0 before there are as many

 private:
  std::array<double, slow_rank_window> last_{};
  int64_t steps_ = 0;
};

/// What a rank tells of itself.
struct RankTime {
  int64_t steps = 0;    // so far
  double median_s = 0;  // of the newest; NaN or 0: not known
  double weight = 1;    // of its work, beside that of its peers: uneven cuts are no slowness
  int32_t stage = 0;    // peers are the ranks of one pipeline stage
  int32_t unused = 0;
};

struct SlowRank {
  int rank = 0;
  double factor = 0;  // its time for a unit of work over the median of its peers'
  double median_s = 0, peers_s = 0;
};

/// Judges windows that do not overlap: a rank is slow that takes `factor` times as long as the median of its
/// peers in two windows that follow each other. Each rank is named once.
class SlowRanks {
 public:
  explicit SlowRanks(double factor = 1.5) : factor_(factor) {}

  /// To be called now and then with what all ranks tell, [rank]; returns who is to be named now.
  std::vector<SlowRank> observe(std::span<const RankTime> ranks);

 private:
  double factor_;
  int64_t judged_steps_ = 0;
  std::set<int> suspects_, named_;
};

}  // namespace ptrain
