// A model directory's tensors against what its config.json asks for: names, shapes and dtypes, from the
// headers alone. Not for reading weights: model_files.h.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "src/io/hf_dir.h"
#include "src/model/spec.h"

namespace ptrain {

/// Errors: ExitCode::input where tensors have another shape, are missing or are no floats, naming up to
/// three. Returns the names of tensors that the model has no use for; not among them is what every reader
/// leaves out: the lm_head.weight of a tied model and tables of rotary frequencies.
std::vector<std::string> check_weights(const ModelSpec& spec, const HfDir& directory);

/// Whether a directory holds weights at all, of whatever kind.
bool has_weight_files(const std::filesystem::path& directory);

/// A warning of what check_weights returned; nothing where that is empty.
void warn_of_unused(const HfDir& directory, const std::vector<std::string>& names);

}  // namespace ptrain
