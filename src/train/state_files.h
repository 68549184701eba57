// A trainer's weights and moments as slices of named tensors: what it saves, each element of the model once
// over the mesh, and what it wants back, on any grid.
#pragma once

#include <vector>

#include "src/io/checkpoint.h"
#include "src/train/trainer.h"

namespace ptrain {

std::vector<StateSlice> slices_to_save(const Trainer& trainer);
std::vector<StateSlice> slices_to_load(const Trainer& trainer);

}  // namespace ptrain
