// A run from its configuration to the trained model: builds everything, then step by step trains, evaluates,
// saves and logs. Not for arithmetic (trainer) nor for the command line (launch).
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/train/config_load.h"
#include "src/train/metrics.h"
#include "src/train/run_device.h"

namespace ptrain {

/// What a run gets from the process that it runs in.
struct RunEnvironment {
  Communicator& world;
  RunDevice device;
  std::vector<std::string> banner = {};    // lines for the start of the log: who computes where
  std::function<void()> after_connecting;  // a collective, called when the communicators are up; may be empty
  std::span<const std::string> hosts = {};    // of each rank; empty = not known
  std::string search_path;                    // PATH, where the program for S3 is looked for
  std::string job;                            // of the cluster's scheduler, for the lock; may be empty
  std::optional<double> peak_flops;           // of all ranks together, for MFU
  std::function<void(std::string_view)> say;  // a line of the product (stdout); called on rank 0 alone
  /// Called on rank 0 after every step, also those that are not logged, in the place of step lines by say;
  /// may be empty.
  std::function<void(const StepResult&, const RunProgress&)> show_step;
  std::function<bool()> is_stop_wanted;  // asked on every rank after each step: save, and leave with 75
};

/// A collective: trains, or goes on where the newest checkpoint stands, until the model lies in
/// <output>/model. Errors: see INTERFACE.md, section 5.
ExitCode run_training(const LoadedConfig& loaded, const RunEnvironment& environment);

}  // namespace ptrain
