// ptrain --version: version, git revision and one line each of what is built in; beside what belongs to a
// GPU, what this machine has of it. Libraries are asked for their numbers alone: no GPU is started.
#include <fmt/format.h>

#include "kernels/base/runtime.h"
#include "kernels/ops/libraries.h"
#include "launch/build_info.h"
#include "launch/revision.h"
#include "launch/verbs.h"
#include "parallel/comm/nccl_door.h"

namespace ptrain {
namespace {

/// What the machine has, in brackets; nothing for parts that are the same wherever the program runs.
std::string found_here(std::string_view part) {
  if (part == "cuda") {
    const int driver = runtime::versions().driver;  // 13000 is 13.0
    return driver == 0 ? " (no driver here)"
                       : fmt::format(" (the driver here serves {}.{})", driver / 1000, driver % 1000 / 10);
  }
  if (part == "nccl") {
    const auto nccl = make_nccl();
    if (!nccl) return {};
    const int version = nccl->version();  // 22809 is 2.28.9
    return fmt::format(" (here {}.{}.{})", version / 10000, version / 100 % 100, version % 100);
  }
  if (part == "cudnn") {
    const int64_t version = library_versions(DeviceKind::cuda).cudnn;  // 91900 is 9.19.0
    return version == 0
               ? std::string()
               : fmt::format(" (here {}.{}.{})", version / 10000, version / 100 % 100, version % 100);
  }
  return {};
}

}  // namespace

int run_version(const Arguments&) {
  fmt::print("ptrain {}\ngit {}\n", build_info::version, build_info::revision);
  for (const auto& [name, version] : build_info::parts)
    fmt::print("{} {}{}\n", name, version, version == "none" ? std::string() : found_here(name));
  return 0;
}

}  // namespace ptrain
