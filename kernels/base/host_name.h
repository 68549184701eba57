// This host, as its users and MPI know it.
#pragma once

#include <unistd.h>

#include <string>

namespace ptrain {

inline std::string host_name() {
  char name[256] = "?";
  ::gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace ptrain
