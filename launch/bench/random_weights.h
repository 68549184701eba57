// Weights that nobody trained, made where they lie: a model of billions in a moment. Not the initial weights
// of a run (src/model/init.h), whose every element is a function of its place.
#pragma once

#include <vector>

#include "kernels/ops/context.h"
#include "src/model/weights.h"
#include "src/train/trainer.h"

namespace ptrain::bench {

/// Matrices get normal(0, init_range) numbers that repeat after some millions, norms ones, biases zeros: the
/// same on every rank for the same part of a weight.   flat: any device, float dtype
void make_up_weights(const Context& context, const ModelSpec& spec, const std::vector<PlacedWeight>& placed,
                     Tensor flat);

/// The same for a trainer; its master values are those weights.
void make_up_weights(Trainer& trainer);

}  // namespace ptrain::bench
