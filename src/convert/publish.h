// Puts a finished model directory in the place of an older one.
#pragma once

#include <filesystem>

namespace ptrain {

/// Where a model for `directory` is made before it is published: inside of it, on the same file system.
std::filesystem::path work_directory(const std::filesystem::path& directory);

/// Moves the files of the work directory into `directory` and removes it. An older model's files go first,
/// what makes a directory a model, config.json, comes last, so that nobody finds half of one and half of the
/// other. Errors: ExitCode::resources.
void publish_model(const std::filesystem::path& directory);

}  // namespace ptrain
