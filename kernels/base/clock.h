// Time as this process reads it. Not for comparing hosts: parallel/comm/clock.h.
#pragma once

#include <chrono>

namespace ptrain {

/// Seconds since some moment, on a clock that only goes forward: for how long something took.
inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds since 1970, on a clock that may be set: for people and files.
inline double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace ptrain
