// Where the best model lies when hosts have disks of their own: <output>/model of the host that was the first
// one when it was found. Brought to the one that is first now.
#pragma once

#include <filesystem>

#include "src/io/storage.h"

namespace ptrain {

/// Notes on this disk that <output>/model is that of a step, in <output>/.model-step.
void note_model_step(const std::filesystem::path& output, int64_t step);

/// A collective: makes sure that <output>/model on the first disk is that of `step` or of a later one that
/// this run will find again; copies it over from the disk that has it. False where none has it.
bool bring_best_model(const Storage& storage, const std::filesystem::path& output, int64_t step);

}  // namespace ptrain
