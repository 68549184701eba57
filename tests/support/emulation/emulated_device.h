// What tests may ask of the emulated device of the calling thread.
#pragma once

#include <cstdint>
#include <functional>

namespace ptrain::emulation {

/// Since the start, or since a test set them to zero.
struct Counts {
  int64_t launches = 0;
  int64_t graph_launches = 0;
  int64_t synchronizations = 0;  // how often the host waited
  int64_t allocations = 0;
};
Counts& counts();

/// Work that is tried again until it returns true; the stream stands still until then. Device memory is open
/// while it runs.
void enqueue_when(void* stream, std::function<bool()> work);

}  // namespace ptrain::emulation
