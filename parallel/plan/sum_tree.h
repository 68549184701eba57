// How much memory a sum of addends that come one after another takes when it is taken as a tree. See
// parallel/run/tree_sum.h, which takes it.
#pragma once

#include <bit>

namespace ptrain {

/// Buffers for finished subtrees of a tree over `addends`, the running one not counted: as many as (addends -
/// 1) has binary digits. Example: 1 -> 0, 2 -> 1, 3 and 4 -> 2, 5 to 8 -> 3.
constexpr int sum_tree_levels(int addends) {
  return std::bit_width(static_cast<unsigned>(addends - 1));
}

}  // namespace ptrain
