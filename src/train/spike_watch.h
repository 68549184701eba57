// Whether a loss or gradient norm has jumped: a pure function of the last values. It warns and changes
// nothing; for numbers that are none see judge.h.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace ptrain {

struct Spike {
  double value = 0;
  double median = 0;   // of the values before it
  double score = 0;    // robust standard deviations above it
  int64_t window = 0;  // how many values those are
};

/// Score of a value: (value - median) / max(1.4826 * median absolute deviation, smallest_deviation), over the
/// last `window` values (Iglewicz, Hoaglin: "How to detect and handle outliers", 1993). Told once when it
/// passes `threshold`, and again only after it has been below half of that. Values above stay in the window:
/// half a window later a new level is the usual one.
class SpikeWatch {
 public:
  static constexpr size_t window = 64, enough = 16;

  /// threshold 0: never. smallest_deviation: noise below which nothing is a jump.
  SpikeWatch(double threshold, double smallest_deviation)
      : threshold_(threshold), smallest_deviation_(smallest_deviation) {}

  /// Takes the next value, which is finite. Returns it where it has jumped.
  std::optional<Spike> look(double value);

 private:
  double threshold_, smallest_deviation_;
  std::deque<double> last_;
  bool is_told_ = false;
};

}  // namespace ptrain
