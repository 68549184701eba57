// The order of an epoch's samples: a pure function, the same on every rank and every grid.
// Not how samples become rows: that is packing's.
#pragma once

#include <cstdint>
#include <vector>

namespace ptrain {

enum class Shuffle { off, on };

/// The samples 0 … count - 1 in the order of epoch `epoch` (from 0): a permutation drawn by (seed, epoch,
/// count), or file order. count is below 2^32.
std::vector<uint32_t> sample_order(int64_t count, uint64_t seed, int64_t epoch, Shuffle shuffle);

}  // namespace ptrain
