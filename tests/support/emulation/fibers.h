// Runs a kernel's blocks on a host: one after another in random order, the threads of a block as fibers that
// stop at barriers and warp exchanges and go on in random order, so that a missing barrier shows. Not a model
// of speed.
#pragma once

#include <cstdint>
#include <functional>
#include <source_location>

namespace ptrain::emulation {

struct Size {
  unsigned x = 1, y = 1, z = 1;
};

/// What a kernel's thread asks of its surroundings.
struct Thread {
  Size thread, block, block_size, grid;
  void* dynamic_shared = nullptr;
};
extern constinit thread_local const Thread* running_thread;
inline const Thread& this_thread() {
  return *running_thread;
}
inline int lane() {
  return static_cast<int>(this_thread().thread.x % 32);
}

/// What the lanes of a warp brought to an exchange.
class Lanes {
 public:
  static constexpr int max_bytes = 128;
  Lanes(const unsigned char* first, int64_t stride) : first_(first), stride_(stride) {}
  const void* of(int lane) const { return first_ + lane * stride_; }

 private:
  const unsigned char* first_;
  int64_t stride_;
};

/// Every thread of the block that has not ended must come to this place of the source before any goes on.
void block_barrier(std::source_location place);

/// What a lane does with the lanes' values: read(reader, values).
using ReadLanes = void (*)(void* reader, const Lanes& values);
void warp_exchange(unsigned mask, const void* value, int64_t bytes, ReadLanes read, void* reader);
/// Waits for all lanes of `mask` that exist, each with `bytes` of its own, then shows all of them to `read`.
/// The lanes must bring the same mask and the same kind of exchange.
template <class Read>
void warp_exchange(unsigned mask, const void* value, int64_t bytes, Read read) {
  warp_exchange(
      mask, value, bytes, [](void* reader, const Lanes& values) { (*static_cast<Read*>(reader))(values); },
      &read);
}

/// Runs every block of the grid to its end. Throws where threads wait for others that never come.
void run_grid(Size grid, unsigned threads, int64_t shared_bytes, const std::function<void()>& kernel);

/// Work of an emulated stream; it runs when the device gets to it: see emulated_device.cpp.
void enqueue(void* stream, std::function<void()> work);

/// Seeds the order of threads, blocks and streams.
void seed_order(uint64_t seed);
uint64_t next_random();

}  // namespace ptrain::emulation
