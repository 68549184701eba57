// Ranks as threads of one process, for tests and for tools without a launcher. Messages are copied under one
// lock: simple and the same every time, not fast.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// Runs body on `ranks` threads, each with its rank of one world, and returns when all have ended.
/// The first exception of a rank wakes the others, which end with an Error that holds its text, and is thrown
/// again here. Ranks that all wait for messages that nobody will send are an Error (ExitCode::hang) and no
/// hang.
void run_thread_ranks(int ranks, const std::function<void(Communicator&)>& body);

}  // namespace ptrain
