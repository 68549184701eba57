// ptrain --version: version, git revision and one line each of what is built in.
#include <fmt/core.h>

#include "launch/build_info.h"
#include "launch/revision.h"
#include "launch/verbs.h"

namespace ptrain {

int run_version(const Arguments&) {
  fmt::print("ptrain {}\ngit {}\n", build_info::version, build_info::revision);
  for (const auto& [name, version] : build_info::parts) fmt::print("{} {}\n", name, version);
  return 0;
}

}  // namespace ptrain
