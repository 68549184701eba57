// What every verb that computes begins with: the session, who speaks, how many threads. Not for what the verb
// does.
#pragma once

#include <functional>

#include "launch/cli.h"
#include "launch/gpu.h"
#include "parallel/comm/session.h"
#include "src/train/run_device.h"

namespace ptrain {

struct Runtime {
  Session& session;
  Communicator& world;
  RunDevice& device;
  Context& context;  // the device's
  const Arguments& arguments;
  Gpu* gpu = nullptr;

  bool is_first() const { return world.rank() == 0; }
};

/// The ranks as one tensor group, for tensors where they compute.
MeshComms tensor_group(Runtime& runtime);

/// Joins the ranks of the launcher, runs `program` on each, and returns its exit code. Errors end the job;
/// see Session. With a configuration: on the device that it asks for; else on the CPU.
int run_on_ranks(const Arguments& arguments, Config::LogLevel level,
                 const std::function<int(Runtime&)>& program);
int run_on_ranks(const Arguments& arguments, const Config& config,
                 const std::function<int(Runtime&)>& program);

}  // namespace ptrain
