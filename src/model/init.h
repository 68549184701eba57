// Random initial weights: the same bits on every grid, since each element is a function of (seed, HF name,
// global index).
#pragma once

#include "parallel/plan/flat.h"
#include "src/model/weights.h"

namespace ptrain {

/// Fills one placed weight in the stage's flat buffer: normal(0, init_range), ones or zeros.
void initialise(const PlacedWeight& weight, uint64_t seed, double init_range, Tensor flat);

}  // namespace ptrain
