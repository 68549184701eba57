// Files from one disk to others over the wires, for hosts that share none. The bytes go as they are: whoever
// reads the file there checks it as anywhere.
#pragma once

#include <filesystem>
#include <optional>

#include "kernels/base/error.h"
#include "parallel/comm/communicator.h"

namespace ptrain {

/// A collective of `comm`: every other rank gets the file `path` of rank `root` under the same name, on the
/// disk when this returns. What goes wrong on a rank is returned there, after all are through: agree() on it.
std::optional<Error> spread_file(Communicator& comm, int root, const std::filesystem::path& path);

}  // namespace ptrain
