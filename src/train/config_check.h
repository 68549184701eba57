// Judges a configuration against itself and the size of the world.
// Not for what needs the model or the data: heads, layers, files.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "src/train/config_load.h"

namespace ptrain {

/// How many ranks there are, and the words for where that number comes from.
struct WorldSize {
  int ranks = 1;
  std::string_view source = "mpirun started";  // "… but mpirun started 8 ranks"
  std::span<const std::string> hosts = {};     // of each rank; empty = not known
};

/// Mesh against ranks and hosts, global batch against micro-batches, keys that need others. Errors:
/// ExitCode::usage, with the place of the key, the values and the fix.
void check_config(const LoadedConfig& loaded, const WorldSize& world);

}  // namespace ptrain
