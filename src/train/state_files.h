// A trainer's weights and moments as slices of named tensors: what it saves, each element of the model once
// over the mesh, and what it wants back, on any grid.
#pragma once

#include <vector>

#include "src/io/checkpoint.h"
#include "src/train/host_state.h"

namespace ptrain {

/// Their tensors lie in `state`: after get() and before put(). With HostState::Parts::weights there are no
/// moments.
std::vector<StateSlice> slices_to_save(const Trainer& trainer, const HostState& state);
/// The same where they lie: weights of at least the optimizer's segments, moments as the optimizer's.
std::vector<StateSlice> slices_to_save(const Trainer& trainer, const FlatMemory& weights, Tensor m, Tensor v);
std::vector<StateSlice> slices_to_load(const Trainer& trainer, const HostState& state);

}  // namespace ptrain
