// Finds libfabric and aws-ofi-nccl by their files. Not for loading them.
#pragma once

#include <filesystem>
#include <string_view>

#include "parallel/plan/network.h"

namespace ptrain {

/// Fills in the report's has_libfabric, libfabric, plugin_path, is_plugin_on_search_path, plugin and
/// tuner_path. `search_path`: LD_LIBRARY_PATH. Versions come from pkg-config files, from the EFA installer's
/// list of packages and from the name that the plugin's file carries; paths are as the machine itself names
/// them.
void find_network_libraries(const std::filesystem::path& root, std::string_view search_path,
                            NetworkReport& report);

}  // namespace ptrain
