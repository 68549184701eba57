// Where the measured speed of this machine is kept between `ptrain bench gemm` and training. Not for
// measuring.
#pragma once

#include <filesystem>
#include <optional>

#include "launch/runtime.h"
#include "src/train/peak.h"

namespace ptrain {

/// ptrain/peak.json below $XDG_CACHE_HOME or ~/.cache; nothing where the environment names neither.
std::optional<std::filesystem::path> peak_file(const Arguments& arguments);

/// This node's CPU and its threads at work: those of all its ranks, at most the cores. On GPUs: their name
/// with the type of the products' operands, and the ranks.
PeakKey node_key(const Runtime& runtime, Config::Precision precision);

/// Whether the node's ranks together have a core for each of their threads. Without, each rank's best moment
/// is when the others wait: their sum is more than the node can do.
bool has_core_for_each_thread(const Runtime& runtime);

/// A collective: FLOP/s of all ranks together, or nothing where one's node was not measured with as many
/// threads.
std::optional<double> measured_peak(const Runtime& runtime, const Config& config);

}  // namespace ptrain
