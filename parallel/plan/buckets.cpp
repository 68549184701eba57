#include "parallel/plan/buckets.h"

#include "kernels/base/error.h"

namespace ptrain {

std::vector<Range> cut_buckets(const std::vector<BucketUnit>& units, int64_t first_unit,
                               int64_t target_elements) {
  check(target_elements > 0, "a bucket of {} elements", target_elements);
  std::vector<Range> buckets;
  int64_t held = 0;
  bool is_open = false;
  for (size_t i = units.size(); i-- > 0;) {
    const BucketUnit& unit = units[i];
    const int64_t number = first_unit + static_cast<int64_t>(i);
    if (is_open && !unit.is_alone) {
      --buckets.back().begin;
      ++buckets.back().count;
    } else {
      buckets.push_back({number, 1});
      held = 0;
    }
    held += unit.elements;
    is_open = !unit.is_alone && held < target_elements;
  }
  return buckets;
}

}  // namespace ptrain
