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

constinit thread_local const Thread* running_thread = nullptr;

namespace {

constexpr size_t stack_bytes = 192 << 10;
constexpr unsigned max_threads = 1024;

enum class State : uint8_t { running, at_barrier, ended };  // in a warp's exchange too it runs

struct Fiber {
  Thread thread;
  State state = State::ended;
  bool is_started = false;
  void* stack = nullptr;
  jmp_buf place;
};

struct Warp {
  unsigned exchanging = 0;  // lanes that wait in an exchange
  unsigned present = 0;     // lanes that exist
  unsigned ended = 0;
  // Of each exchanging lane: its mask, what it does with the values, and what it brought. Most bring few
  // bytes, which then lie together.
  unsigned masks[32];
  ReadLanes reads[32];
  void* readers[32];
  alignas(16) unsigned char small[32][8];
  alignas(16) unsigned char large[32][Lanes::max_bytes];
};

/// One block under way. A thread of the host has its own.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  Fiber* ready[max_threads];  // fibers that may go on
  size_t ready_count = 0;
  std::vector<unsigned> order;  // of the grid's blocks
  unsigned count = 0, live = 0, waiting = 0;
  std::source_location barrier;  // where those who wait stand
  std::exception_ptr failure;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  ucontext_t entry;  // of the fiber that starts
  const std::function<void()>* kernel = nullptr;
};

constinit thread_local uint64_t random_state = 0x9e3779b97f4a7c15u;

/// Made once a host thread and kept: fibers name it.
Block& block() {
  constinit thread_local Block* the_block = nullptr;
  if (the_block == nullptr) {
    thread_local const std::unique_ptr<Block> owner = std::make_unique<Block>();
    the_block = owner.get();
  }
  return *the_block;
}

/// A number below `bound`.
unsigned random_below(size_t bound) {
  return static_cast<unsigned>((next_random() >> 32) * bound >> 32);
}

unsigned index_of(const Fiber& fiber) {
  return fiber.thread.thread.x;
}

void fiber_main();

[[noreturn]] void go_to(Block& b, Fiber& fiber) {
  b.current = &fiber;
  running_thread = &fiber.thread;
  if (fiber.is_started) _longjmp(fiber.place, 1);
  fiber.is_started = true;
  if (fiber.stack == nullptr) {
    fiber.stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(fiber.stack != MAP_FAILED, ExitCode::resources, "no memory for an emulated thread's stack");
  }
  getcontext(&b.entry);
  b.entry.uc_stack.ss_sp = fiber.stack;
  // Tops that are not a power of two apart: else all stacks want the same lines of the processor's cache.
  b.entry.uc_stack.ss_size = stack_bytes - index_of(fiber) % 64 * 1088;
  b.entry.uc_link = nullptr;
  makecontext(&b.entry, fiber_main, 0);
  setcontext(&b.entry);
  std::terminate();  // setcontext does not return
}

/// A random fiber of those that may go on is the next; null: none may.
Fiber* take_ready(Block& b) {
  if (b.ready_count == 0) return nullptr;
  std::swap(b.ready[random_below(b.ready_count)], b.ready[b.ready_count - 1]);
  return b.ready[--b.ready_count];
}

/// The current fiber stops here until somebody goes on with it.
void yield(Block& b) {
  Fiber* self = b.current;
  Fiber* next = b.failure ? nullptr : take_ready(b);
  if (next == self) return;
  if (_setjmp(self->place) != 0) return;
  if (next == nullptr) _longjmp(b.scheduler, 1);
  go_to(b, *next);
}

void make_ready(Block& b, Fiber& fiber) {
  b.ready[b.ready_count++] = &fiber;
}

void release_barrier(Block& b) {
  if (b.live == 0 || b.waiting != b.live) return;
  b.waiting = 0;
  for (unsigned i = 0; i < b.count; ++i) {
    Fiber& fiber = *b.fibers[i];
    if (fiber.state != State::at_barrier) continue;
    fiber.state = State::running;
    make_ready(b, fiber);
  }
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
    yield(b);
  }
}

/// What a kernel threw leaves here; threads that stand somewhere begin anew the next time.
[[noreturn]] void give_up(Block& b) {
  for (const auto& fiber : b.fibers) fiber->is_started = false;
  running_thread = nullptr;
  std::rethrow_exception(std::exchange(b.failure, nullptr));
}

void run_block(Block& b) {
  // Fibers hand over to each other; who finds nobody that may go on comes back here.
  if (_setjmp(b.scheduler) == 0) go_to(b, *take_ready(b));
  if (!b.failure && b.live > 0) {
    b.failure = std::make_exception_ptr(
        Error(ExitCode::defect,
              fmt::format("an emulated block stands still: {} of its {} threads wait, {} at a barrier",
                          b.live, b.count, b.waiting),
              std::source_location::current()));
  }
  if (b.failure) give_up(b);
}

void start_block(Block& b, Size index, Size grid, unsigned threads, void* shared) {
  b.warps.resize((threads + 31) / 32);
  for (Warp& warp : b.warps) warp.exchanging = warp.present = warp.ended = 0;
  b.ready_count = 0;
  b.live = threads;
  b.waiting = 0;
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = *b.fibers[t];
    fiber.thread = {.thread = {t, 0, 0},
                    .block = index,
                    .block_size = {threads, 1, 1},
                    .grid = grid,
                    .dynamic_shared = shared};
    fiber.state = State::running;
    b.warps[t / 32].present |= 1u << (t % 32);
    make_ready(b, fiber);
  }
}

[[noreturn, gnu::noinline]] void refuse_exchange(const Warp& warp, unsigned lane, unsigned mask,
                                                 int64_t bytes) {
  check(mask >> lane & 1u, "lane {} calls a warp exchange whose mask {:#x} is without it", lane, mask);
  check(bytes <= Lanes::max_bytes, "a warp exchange of {} bytes a lane", bytes);
  fail(ExitCode::defect, "a warp exchange waits for lanes {:#x} that have ended", warp.ended & mask);
}

/// Every lane of the exchange reads, as if it ran.
void complete_exchange(Block& b, Warp& warp, const Lanes& values, unsigned first, unsigned lanes) {
  const Fiber& self = *b.current;
  const unsigned own = index_of(self) % 32;
  warp.exchanging &= ~lanes;
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
    const unsigned lane = static_cast<unsigned>(__builtin_ctz(rest));
    if (warp.masks[lane] != warp.masks[own] || warp.reads[lane] != warp.reads[own]) [[unlikely]] {
      fail(ExitCode::defect,
           "lanes {} and {} of a warp meet in different exchanges or with other masks: {:#x}, {:#x}", own,
           lane, warp.masks[own], warp.masks[lane]);
    }
    Fiber& fiber = *b.fibers[first + lane];
    running_thread = &fiber.thread;
    warp.reads[lane](warp.readers[lane], values);
    make_ready(b, fiber);
  }
  running_thread = &self.thread;
}

}  // namespace

void seed_order(uint64_t seed) {
  random_state = (seed + 1) * 0x9e3779b97f4a7c15u | 1u;
}

uint64_t next_random() {
  uint64_t& x = random_state;  // xorshift64 (Marsaglia 2003)
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}

void block_barrier(std::source_location place) {
  Block& b = block();
  if (b.waiting > 0 && (place.line() != b.barrier.line() || place.column() != b.barrier.column()))
      [[unlikely]] {
    fail(ExitCode::defect, "threads of a block stand at different barriers, in lines {} and {}",
         b.barrier.line(), place.line());
  }
  b.barrier = place;
  b.current->state = State::at_barrier;
  ++b.waiting;
  release_barrier(b);
  yield(b);
}

void warp_exchange(unsigned mask, const void* value, int64_t bytes, ReadLanes read, void* reader) {
  Block& b = block();
  const unsigned index = index_of(*b.current), lane = index % 32;
  Warp& warp = b.warps[index / 32];
  if ((mask >> lane & 1u) == 0 || bytes > Lanes::max_bytes || (warp.ended & mask) != 0) [[unlikely]]
    refuse_exchange(warp, lane, mask, bytes);
  unsigned char* own = bytes <= 8 ? warp.small[lane] : warp.large[lane];
  if (bytes > 0) std::memcpy(own, value, static_cast<size_t>(bytes));
  warp.exchanging |= 1u << lane;
  warp.masks[lane] = mask;
  warp.reads[lane] = read;
  warp.readers[lane] = reader;
  const unsigned expected = mask & warp.present;
  if ((warp.exchanging & expected) == expected) {
    const Lanes values =
        bytes <= 8 ? Lanes(warp.small[0], sizeof warp.small[0]) : Lanes(warp.large[0], sizeof warp.large[0]);
    complete_exchange(b, warp, values, index - lane, expected);
  }
  yield(b);
}

void run_grid(Size grid, unsigned threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  Block& b = block();
  check(threads >= 1 && threads <= max_threads, "a block of {} threads", threads);
  check(shared_bytes <= 227 * 1024, "a block with {} bytes of shared memory", shared_bytes);
  check(grid.y <= 65535 && grid.z <= 65535, "a grid of ({}, {}, {}) blocks", grid.x, grid.y, grid.z);
  while (b.fibers.size() < threads) b.fibers.push_back(std::make_unique<Fiber>());
  b.count = threads;
  b.kernel = &kernel;
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[static_cast<size_t>(shared_bytes) + 128]);
  auto* shared = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.get()) + 127) / 128 * 128);
  b.order.resize(size_t{grid.x} * grid.y * grid.z);
  for (size_t i = 0; i < b.order.size(); ++i) b.order[i] = static_cast<unsigned>(i);
  for (size_t left = b.order.size(); left > 0; --left) {
    std::swap(b.order[random_below(left)], b.order[left - 1]);
    const unsigned i = b.order[left - 1];
    // What a block finds in shared memory is anything: here, not-a-numbers.
    std::memset(shared, 0xff, static_cast<size_t>(shared_bytes));
    start_block(b, {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y}, grid, threads, shared);
    run_block(b);
  }
  b.current = nullptr;
  running_thread = nullptr;
}

}  // namespace ptrain::emulation
