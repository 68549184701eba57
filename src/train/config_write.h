// The configuration written out: the resolved config.yaml of a run and the JSON Schema of every key.
#pragma once

#include <filesystem>
#include <string>

#include "src/io/json_fwd.h"
#include "src/train/config.h"

namespace ptrain {

/// Every key with its value, as YAML that load_config reads back to the same Config; paths made absolute
/// against `working_directory`.
std::string config_yaml(const Config& config, const std::filesystem::path& working_directory);

/// "optimizer.learning_rate 1.0e-05", a line for each key that is no path.
std::string settings_text(const Config& config);

/// The configuration with every path absolute.
Config with_absolute_paths(Config config, const std::filesystem::path& working_directory);

/// JSON Schema (2020-12) of the YAML file, with defaults and units.
Json config_schema();

/// docs/configuration.md: a table of each section's keys, with values, defaults and meanings.
std::string config_reference();
/// docs/moving.md's table: other trainers' names and ours.
std::string moving_table();

}  // namespace ptrain
