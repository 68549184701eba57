// A world of one rank: every collective is a copy or nothing. Messages to itself arrive, lane by lane.
#pragma once

#include <memory>

#include "parallel/comm/communicator.h"

namespace ptrain {

std::unique_ptr<Communicator> make_self_communicator();

}  // namespace ptrain
