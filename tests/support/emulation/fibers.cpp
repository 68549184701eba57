#include "tests/support/emulation/fibers.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstring>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/base/error.h"

namespace ptrain::emulation {
namespace {

constexpr size_t stack_bytes = 128 << 10;
constexpr unsigned max_threads = 1024;

enum class State : uint8_t { ready, at_barrier, in_exchange, ended };

/// A warp's exchanges: two sets of values in turn, since a lane may bring its next one before another has
/// read the last.
struct Warp {
  Lanes values[2];
  unsigned arrived[2] = {};  // lanes
  unsigned present = 0;      // lanes that exist
  unsigned ended = 0;
};

struct Fiber {
  Thread thread;
  State state = State::ended;
  unsigned turn = 0;  // of exchanges, counts up
  unsigned mask = 0;  // of the exchange it waits in
  jmp_buf place;
  bool is_started = false;
  ucontext_t entry;
  void* stack = nullptr;
};

/// One block under way. A thread of the host has its own.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned> ready;  // fibers that may go on
  unsigned count = 0, live = 0, waiting = 0;
  std::exception_ptr failure;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  ucontext_t scheduler_context;
  const std::function<void()>* kernel = nullptr;
  uint64_t random = 0x9e3779b97f4a7c15u;
};

Block& block() {
  thread_local Block the_block;
  return the_block;
}

unsigned index_of(const Fiber& fiber) {
  return fiber.thread.thread.x;
}

void yield() {
  Block& b = block();
  Fiber* self = b.current;
  if (_setjmp(self->place) == 0) _longjmp(b.scheduler, 1);
}

void make_ready(Block& b, Fiber& fiber) {
  fiber.state = State::ready;
  b.ready.push_back(index_of(fiber));
}

void release_barrier(Block& b) {
  if (b.live == 0 || b.waiting != b.live) return;
  b.waiting = 0;
  for (unsigned i = 0; i < b.count; ++i)
    if (b.fibers[i]->state == State::at_barrier) make_ready(b, *b.fibers[i]);
}

void end_fiber(Block& b, Fiber& fiber) {
  fiber.state = State::ended;
  --b.live;
  b.warps[index_of(fiber) / 32].ended |= 1u << (index_of(fiber) % 32);
  release_barrier(b);  // threads that have ended count as come
}

/// A fiber runs one kernel thread after another for ever: its stack is made once.
void fiber_main() {
  for (;;) {
    Block& b = block();
    try {
      (*b.kernel)();
    } catch (...) {
      b.failure = std::current_exception();
    }
    end_fiber(b, *b.current);
    yield();
  }
}

void resume(Block& b, Fiber& fiber) {
  b.current = &fiber;
  if (_setjmp(b.scheduler) != 0) return;
  if (fiber.is_started) _longjmp(fiber.place, 1);
  fiber.is_started = true;
  if (fiber.stack == nullptr) {
    fiber.stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(fiber.stack != MAP_FAILED, ExitCode::resources, "no memory for an emulated thread's stack");
  }
  getcontext(&fiber.entry);
  fiber.entry.uc_stack.ss_sp = fiber.stack;
  fiber.entry.uc_stack.ss_size = stack_bytes;
  fiber.entry.uc_link = nullptr;
  makecontext(&fiber.entry, fiber_main, 0);
  setcontext(&fiber.entry);
}

/// What a kernel threw leaves through the scheduler; threads that stand somewhere begin anew the next time.
[[noreturn]] void give_up(Block& b) {
  for (const auto& fiber : b.fibers) fiber->is_started = false;
  std::rethrow_exception(std::exchange(b.failure, nullptr));
}

void run_block(Block& b) {
  while (b.live > 0) {
    if (b.ready.empty()) {
      b.failure = std::make_exception_ptr(
          Error(ExitCode::defect,
                fmt::format("an emulated block stands still: {} of its {} threads wait, {} at a barrier",
                            b.live, b.count, b.waiting),
                std::source_location::current()));
      give_up(b);
    }
    const size_t pick = next_random() % b.ready.size();
    std::swap(b.ready[pick], b.ready.back());
    Fiber& fiber = *b.fibers[b.ready.back()];
    b.ready.pop_back();
    resume(b, fiber);
    if (b.failure) give_up(b);
  }
}

}  // namespace

const Thread& this_thread() {
  return block().current->thread;
}

void seed_order(uint64_t seed) {
  block().random = seed * 2 + 1;
}

uint64_t next_random() {
  uint64_t& x = block().random;  // xorshift64 (Marsaglia 2003)
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}

void block_barrier() {
  Block& b = block();
  b.current->state = State::at_barrier;
  ++b.waiting;
  release_barrier(b);
  yield();
}

void warp_exchange(unsigned mask, const void* value, int64_t bytes,
                   const std::function<void(const Lanes&)>& read) {
  Block& b = block();
  Fiber& self = *b.current;
  const unsigned index = index_of(self), lane = index % 32;
  Warp& warp = b.warps[index / 32];
  check(mask >> lane & 1u, "lane {} calls a warp exchange whose mask {:#x} is without it", lane, mask);
  check(bytes <= Lanes::max_bytes, "a warp exchange of {} bytes a lane", bytes);
  check((warp.ended & mask) == 0, "a warp exchange waits for lanes {:#x} that have ended", warp.ended & mask);
  const unsigned set = self.turn++ % 2;
  if (bytes > 0) std::memcpy(warp.values[set].of(static_cast<int>(lane)), value, static_cast<size_t>(bytes));
  warp.arrived[set] |= 1u << lane;
  self.mask = mask;
  const unsigned expected = mask & warp.present;
  if ((warp.arrived[set] & expected) == expected) {
    warp.arrived[set] &= ~expected;
    for (unsigned other = 0; other < 32; ++other) {
      if (!(expected >> other & 1u)) continue;
      Fiber& fiber = *b.fibers[index / 32 * 32 + other];
      check(other == lane || (fiber.state == State::in_exchange && fiber.mask == mask),
            "lanes {} and {} meet in a warp exchange with other masks", lane, other);
      make_ready(b, fiber);
    }
  } else {
    self.state = State::in_exchange;
  }
  yield();
  read(warp.values[set]);
}

void run_grid(Size grid, unsigned threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  Block& b = block();
  check(threads >= 1 && threads <= max_threads, "a block of {} threads", threads);
  check(shared_bytes <= 227 * 1024, "a block with {} bytes of shared memory", shared_bytes);
  while (b.fibers.size() < threads) b.fibers.push_back(std::make_unique<Fiber>());
  b.count = threads;
  b.kernel = &kernel;
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[static_cast<size_t>(shared_bytes) + 128]);
  auto* shared = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.get()) + 127) / 128 * 128);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        // What a block finds in shared memory is anything: here, not-a-numbers.
        std::memset(shared, 0xff, static_cast<size_t>(shared_bytes));
        b.warps.assign((threads + 31) / 32, {});
        b.ready.clear();
        b.live = threads;
        b.waiting = 0;
        for (unsigned t = 0; t < threads; ++t) {
          Fiber& fiber = *b.fibers[t];
          fiber.thread = {.thread = {t, 0, 0},
                          .block = {x, y, z},
                          .block_size = {threads, 1, 1},
                          .grid = grid,
                          .dynamic_shared = shared};
          fiber.turn = 0;
          b.warps[t / 32].present |= 1u << (t % 32);
          make_ready(b, fiber);
        }
        run_block(b);
      }
    }
  }
  b.current = nullptr;
}

}  // namespace ptrain::emulation
