// Random initial weights: the same bits on every grid, since each element is a function of (seed, HF name,
// global index).
#pragma once

#include <string_view>

#include "parallel/plan/flat.h"
#include "src/model/weights.h"

namespace ptrain {

/// out = elements `place` (in row-major order) of the tensor `name`: normal(0, init_range).
/// out: (place.count) f32 or f64
void draw_normal(std::string_view name, uint64_t seed, double init_range, Range place, Tensor out);

/// Fills one placed weight in the stage's flat buffer: normal(0, init_range), ones or zeros.
void initialise(const PlacedWeight& weight, uint64_t seed, double init_range, Tensor flat);

}  // namespace ptrain
