#include "parallel/run/tree_sum.h"

#include "kernels/ops/elementwise.h"

namespace ptrain {

TreeSum::TreeSum(int addends, std::vector<Range> regions)
    : addends_(addends), regions_(std::move(regions)), next_(regions_.size()) {
  check(addends_ >= 1, "a sum of {} addends", addends_);
}

void TreeSum::bind(std::vector<Tensor> levels) {
  check(std::ssize(levels) == this->levels(), "a tree over {} addends has {} levels to keep, not {}",
        addends_, this->levels(), levels.size());
  for (const Tensor& level : levels) {
    for (const Range& region : regions_)
      check(level.is_contiguous() && region.begin >= 0 && region.end() <= level.numel(),
            "a level of {} elements does not hold the region {} .. {}", level.numel(), region.begin,
            region.end());
  }
  levels_ = std::move(levels);
}

/// A binary counter: level l holds the sum of the last 2^l addends before those of the levels below, where
/// bit l of the number of addends so far is 1. One more addend is a carry. With the last one everything that
/// is still kept comes in from the lowest level on, which is how leftovers pass up.
bool TreeSum::add(Context& context, int region, int micro, Tensor ready) {
  check(std::ssize(levels_) == levels(), "a tree over {} addends has {} of {} levels", addends_,
        levels_.size(), levels());
  check(region >= 0 && region < std::ssize(regions_), "region {} of {}", region, regions_.size());
  const auto at = static_cast<size_t>(region);
  const Range range = regions_[at];
  check(micro == next_[at], "region {} gets addend {}, the next one is {}", region, micro, next_[at]);
  check(ready.is_contiguous() && ready.numel() == range.count, "region {} has {} elements, its addend {}",
        region, range.count, ready.numel());
  const Tensor sum = ready.reshaped({range.count});
  const bool is_last = micro + 1 == addends_;
  next_[at] = is_last ? 0 : micro + 1;
  for (size_t l = 0; l < levels_.size(); ++l) {
    const Tensor& level = levels_[l];
    const Tensor kept(level.at(range.begin), {range.count}, level.dtype, level.device);
    const bool is_held = (micro >> l) % 2 != 0;
    if (is_held) {
      ptrain::add(context, kept, sum);
    } else if (!is_last) {
      copy(context, sum, kept);
      return false;
    }
  }
  return true;
}

}  // namespace ptrain
