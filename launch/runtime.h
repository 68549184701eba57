// What every verb that computes begins with: the session, who speaks, how many threads. Not for what the verb
// does.
#pragma once

#include <functional>

#include "kernels/ops/context.h"
#include "launch/cli.h"
#include "parallel/comm/session.h"

namespace ptrain {

struct Runtime {
  Session& session;
  Communicator& world;
  Context context;
  const Arguments& arguments;

  bool is_first() const { return world.rank() == 0; }
};

/// Joins the ranks of the launcher, runs `program` on each, and returns its exit code. Errors end the job;
/// see Session.
int run_on_ranks(const Arguments& arguments, Config::LogLevel level,
                 const std::function<int(Runtime&)>& program);

}  // namespace ptrain
