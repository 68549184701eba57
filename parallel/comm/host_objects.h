// Texts and other bytes of the host, of a length that only the sender knows, between ranks. For set-up and
// reports; step data travels as tensors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// The texts of all ranks in rank order, on every rank.
std::vector<std::string> all_gather_text(Communicator& comm, std::string_view mine);
/// The same on rank `root` only; empty elsewhere.
std::vector<std::string> gather_text(Communicator& comm, std::string_view mine, int root);
/// The text of rank `root`; what the others pass is not looked at.
std::string broadcast_text(Communicator& comm, std::string_view text, int root);

}  // namespace ptrain
