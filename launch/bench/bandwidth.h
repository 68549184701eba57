// What a collective's time says of the wires: the two bandwidths that people compare. Pure.
#pragma once

#include <cstdint>

#include "parallel/comm/communicator.h"

namespace ptrain::bench {

/// Bytes of the whole tensor a second, whatever must travel for them.
constexpr double algorithm_bandwidth(int64_t bytes, double seconds) {
  return static_cast<double>(bytes) / seconds;
}

/// How many times its bytes a whole tensor crosses the slowest link of n ranks, at least: with it, the
/// bandwidth does not depend on the number of ranks.   n = 4: 1.5 of an all-reduce, which sends all but a
/// rank's own quarter once to be summed and once as a sum; 0.75 of a reduce-scatter or an all-gather, each
/// half of that; 1 of what one rank sends as it is.
constexpr double bus_factor(CommKind kind, int ranks) {
  const double others = static_cast<double>(ranks - 1) / ranks;
  switch (kind) {
    case CommKind::all_reduce:
      return 2 * others;
    case CommKind::all_gather:
    case CommKind::reduce_scatter:
    case CommKind::all_to_all:
      return others;
    case CommKind::broadcast:
    case CommKind::point_to_point:
      return 1;
    case CommKind::barrier:
      return 0;
  }
  return 0;
}

/// Bytes a second over the slowest link, to be held against what the link can do.
constexpr double bus_bandwidth(CommKind kind, int ranks, int64_t bytes, double seconds) {
  return bus_factor(kind, ranks) * algorithm_bandwidth(bytes, seconds);
}

}  // namespace ptrain::bench
