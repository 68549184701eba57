// Prices of instances, from a file of the user: the only place where a price comes from.
#pragma once

#include <filesystem>
#include <vector>

#include "parallel/plan/prices.h"

namespace ptrain {

/// YAML or JSON, a map from an instance kind to the price of one such instance an hour, all in one currency:
///   p4d.24xlarge: 12.5
///   ml.g5.48xlarge: 8
/// Errors: ExitCode::usage, with file:line:column: no map, an unknown kind (the known ones are named), a
/// price that is no number above zero; ExitCode::input where the file cannot be read.
std::vector<Price> read_prices(const std::filesystem::path& file);

}  // namespace ptrain
