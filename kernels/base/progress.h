// A sign of life of this process: counted wherever work goes on for long without an operation of its own to
// be noted (a block of text is encoded, a piece of a file is read or written), from any thread. Not for how
// much is done: only whether the count still changes is looked at, by who watches for hangs.
#pragma once

#include <atomic>
#include <cstdint>

namespace ptrain::progress {

namespace detail {
// Of the process, like its log: what lies deep below knows no run.
inline std::atomic<uint64_t> count{0};
}  // namespace detail

inline void tick() {
  detail::count.fetch_add(1, std::memory_order_relaxed);
}

inline uint64_t ticks() {
  return detail::count.load(std::memory_order_relaxed);
}

}  // namespace ptrain::progress
