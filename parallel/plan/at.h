// Plans count in int and int64_t, containers in size_t.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ptrain {

inline size_t at(int64_t index) {
  return static_cast<size_t>(index);
}

}  // namespace ptrain
