// Everything that a run looks at before its first step, looked at without starting it; and, on request, one
// step on trial. Not for training: train_loop.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "parallel/comm/communicator.h"
#include "src/train/config_load.h"
#include "src/train/run_device.h"

namespace ptrain {

/// How far a check goes; each includes those before it.
enum class CheckDepth {
  model,  // the configuration and the model; a directory without weights is enough
  data,   // also every row of every file
  step,   // also loads, takes one step, saves, reads back and compares; needs the ranks of the run
};

struct CheckRequest {
  CheckDepth depth = CheckDepth::data;
  int ranks = 1;                               // that the run would have
  std::string_view source = "mpirun started";  // the words for where that number comes from
  std::span<const std::string> hosts = {};     // of each rank that checks; empty = not known
  std::function<void(std::string_view)> say;   // a line of what was found; called on rank 0 alone
};

/// A collective over the ranks that check, which need not be as many as the run's. Errors: those of the run,
/// with its exit codes. Leaves nothing behind but the cache of tokens that the run will use.
void check_run(const LoadedConfig& loaded, const CheckRequest& request, Communicator& world,
               const RunDevice& device);

}  // namespace ptrain
