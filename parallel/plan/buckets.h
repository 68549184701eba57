// Gradient buckets: which units' gradients are summed over the data axis together. Pure.
#pragma once

#include <vector>

#include "parallel/plan/layout.h"

namespace ptrain {

/// One unit as buckets see it.
struct BucketUnit {
  int64_t elements = 0;   // gradients of the unit on a rank
  bool is_alone = false;  // a bucket of its own: the tied embedding, whose sum comes late
};

/// Ranges of units in the order in which backward finishes them: bucket 0 holds the last units. A bucket is
/// closed once it holds `target_elements`; every unit is in exactly one. `first_unit`: the number of
/// units[0]. Example: units 0-4 of 10 elements each, target 20: [3, 5) [1, 3) [0, 1).
std::vector<Range> cut_buckets(const std::vector<BucketUnit>& units, int64_t first_unit,
                               int64_t target_elements);

}  // namespace ptrain
