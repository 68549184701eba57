// Loading a model whose vocabulary has more rows than its files: the rows that are there from the files, the
// others by model.new_token_init, the same bits on every grid.
#pragma once

#include <vector>

#include "src/io/load.h"
#include "src/train/base_model.h"

namespace ptrain {

/// Collective: fills the destinations of all ranks' `wanted`, slices of base.spec's tensors, from the files
/// of model.path. New rows are normal(0, initializer_range) by (seed, name, index), or the mean of the rows
/// that are there, summed in f64 in their order. Errors: as load_slices.
void load_base_weights(Communicator& world, const HfDir& directory, const BaseModel& base,
                       std::vector<WantedSlice> wanted);

}  // namespace ptrain
