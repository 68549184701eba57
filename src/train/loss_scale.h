// The factor that lifts fp16 gradients out of the range where they vanish. Micikevicius et al.: "Mixed
// precision training" (2018), section 3.2.
#pragma once

#include <cstdint>

namespace ptrain {

/// Halves after a step whose gradients overflowed, doubles after enough steps that did not. 1 for ever where
/// it is not used.
class LossScale {
 public:
  static constexpr double first = 65536, smallest = 0x1p-14, largest = 0x1p24;
  static constexpr int64_t steps_to_double = 2000;

  bool is_used = false;

  double value() const { return is_used ? value_ : 1; }
  /// A step that is not finite may still be the scale's fault.
  bool may_shrink() const { return is_used && value_ > smallest; }
  void note(bool is_finite) {
    good_steps_ = is_finite ? good_steps_ + 1 : 0;
    if (!is_finite) {
      value_ /= 2;
    } else if (good_steps_ == steps_to_double) {
      if (value_ < largest) value_ *= 2;
      good_steps_ = 0;
    }
  }
  /// For checkpoints.
  int64_t good_steps() const { return good_steps_; }
  void restore(double value, int64_t good_steps) {
    value_ = value;
    good_steps_ = good_steps;
  }

 private:
  double value_ = first;
  int64_t good_steps_ = 0;
};

}  // namespace ptrain
