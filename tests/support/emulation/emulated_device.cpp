// An emulated device behind the runtime door. Streams are queues whose work runs as late as it may and, over
// several streams, in random order: a wait that is missing gives wrong results. Device memory cannot be
// touched by the host: a kernel's work alone opens it.
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/runtime.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/emulation/fibers.h"

namespace ptrain {
namespace {

constexpr int64_t page_bytes = 4096;

struct EmulatedEvent {
  int64_t recorded = 0, done = 0;  // how often
  double time_s = 0;
};

struct Work {
  std::function<bool()> run;  // false: it cannot go on yet
};

struct EmulatedStream {
  std::deque<Work> queue;
  std::vector<Work>* capture = nullptr;
};

struct EmulatedGraph {
  std::vector<Work> works;
};

struct Memory {
  char* map = nullptr;  // with a closed page before and behind
  int64_t mapped = 0;
  int64_t bytes = 0;
};

/// The device of one host thread: every rank of a test has its own.
struct Emulated {
  std::vector<EmulatedStream*> streams;
  std::vector<Memory> memory;
  emulation::Counts counts;
  int open = 0;
};

Emulated& device() {
  thread_local Emulated the_device;
  return the_device;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

EmulatedStream& of(runtime::NativeStream stream) {
  check(stream != nullptr, "work for a device without a stream");
  return *static_cast<EmulatedStream*>(stream);
}
EmulatedEvent& event_of(runtime::NativeEvent event) {
  check(event != nullptr, "an event that was never made");
  return *static_cast<EmulatedEvent*>(event);
}

void protect(int rights) {
  for (const Memory& memory : device().memory)
    mprotect(memory.map + page_bytes, static_cast<size_t>(memory.mapped - 2 * page_bytes), rights);
}

/// Opens device memory to what runs.
class Open {
 public:
  Open() {
    if (device().open++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  ~Open() {
    if (--device().open == 0) protect(PROT_NONE);
  }
};

void push(EmulatedStream& stream, Work work) {
  if (stream.capture != nullptr) {
    stream.capture->push_back(std::move(work));
  } else {
    stream.queue.push_back(std::move(work));
  }
}

/// Runs the first work of a random stream that can go on; false: none can.
bool run_one() {
  Emulated& d = device();
  std::vector<EmulatedStream*> waiting;
  for (EmulatedStream* stream : d.streams)
    if (!stream->queue.empty()) waiting.push_back(stream);
  while (!waiting.empty()) {
    const size_t pick = emulation::next_random() % waiting.size();
    EmulatedStream& stream = *waiting[pick];
    if (stream.queue.front().run()) {
      stream.queue.pop_front();
      return true;
    }
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(pick));
  }
  return false;
}

/// Runs until `is_reached`. Work that waits for other ranks may be late: give them time, not for ever.
template <class Condition>
void run_until(const Condition& is_reached) {
  if (is_reached()) return;
  const Open open;  // once for all of it: closing and opening again takes longer than most kernels
  double idle_since = now_s();
  while (!is_reached()) {
    if (run_one()) {
      idle_since = now_s();
      continue;
    }
    check(now_s() - idle_since < 30, "the emulated device stands still: what it waits for never comes");
  }
}

bool run_now(const std::function<void()>& work) {
  const Open open;
  work();
  return true;
}

}  // namespace

namespace emulation {

void enqueue(void* stream, std::function<void()> work) {
  ++device().counts.launches;
  push(of(stream), {[work = std::move(work)] { return run_now(work); }});
}

void enqueue_when(void* stream, std::function<bool()> work) {
  push(of(stream), {[work = std::move(work)] {
         const Open open;
         return work();
       }});
}

Counts& counts() {
  return device().counts;
}

}  // namespace emulation

namespace runtime {

int device_count() {
  return 64;
}
RuntimeVersions versions() {
  return {.toolkit = 13000, .driver = 13000};
}
DeviceInfo device_info(int index) {
  return {.name = "emulated GPU",
          .total_bytes = int64_t{1} << 34,
          .free_bytes = int64_t{1} << 34,
          .major = 9,
          .minor = 0,
          .multiprocessors = 4,
          .pci_bus_id = fmt::format("0000:{:02x}:00.0", index)};
}
bool has_peer_access(int, int) {
  return true;
}
void use_device(int) {}

void* allocate(int64_t bytes, MemoryKind kind, int) {
  const int64_t inner = (bytes + page_bytes - 1) / page_bytes * page_bytes + (bytes == 0 ? page_bytes : 0);
  void* map = mmap(nullptr, static_cast<size_t>(inner + 2 * page_bytes), PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(map != MAP_FAILED, ExitCode::resources, "no memory for {} bytes", bytes);
  const Memory memory{.map = static_cast<char*>(map), .mapped = inner + 2 * page_bytes, .bytes = bytes};
  ++device().counts.allocations;
  if (kind == MemoryKind::device) {
    device().memory.push_back(memory);
    if (device().open > 0) protect(PROT_READ | PROT_WRITE);
  } else {
    mprotect(memory.map + page_bytes, static_cast<size_t>(inner), PROT_READ | PROT_WRITE);
  }
  return memory.map + page_bytes;
}

void release(void* data, MemoryKind kind, int) noexcept {
  if (kind == MemoryKind::pinned) return;  // tests are short, and work may still name it
  std::erase_if(device().memory, [&](const Memory& memory) {
    if (memory.map + page_bytes != data) return false;
    munmap(memory.map, static_cast<size_t>(memory.mapped));
    return true;
  });
}

NativeStream create_stream(Priority) {
  device().streams.push_back(new EmulatedStream);
  return device().streams.back();
}
void destroy_stream(NativeStream stream) noexcept {
  std::erase(device().streams, static_cast<EmulatedStream*>(stream));
  delete static_cast<EmulatedStream*>(stream);
}
void synchronize(NativeStream stream) {
  ++device().counts.synchronizations;
  check(of(stream).capture == nullptr, "the host waits for a stream that is being captured");
  run_until([&] { return of(stream).queue.empty(); });
}

NativeEvent create_event(bool) {
  return new EmulatedEvent;
}
void destroy_event(NativeEvent) noexcept {}  // queued work may still name it
void record(NativeEvent event, NativeStream stream) {
  EmulatedEvent& e = event_of(event);
  const int64_t number = ++e.recorded;
  push(of(stream), {[&e, number] {
         e.done = std::max(e.done, number);
         e.time_s = now_s();
         return true;
       }});
}
void wait(NativeStream stream, NativeEvent event) {
  EmulatedEvent& e = event_of(event);
  push(of(stream), {[&e, number = e.recorded] { return e.done >= number; }});
}
bool is_done(NativeEvent event) {
  run_one();
  return event_of(event).done == event_of(event).recorded;
}
void synchronize_event(NativeEvent event) {
  ++device().counts.synchronizations;
  run_until([&] { return event_of(event).done == event_of(event).recorded; });
}
double seconds_between(NativeEvent begin, NativeEvent end) {
  return event_of(end).time_s - event_of(begin).time_s;
}

void copy_async(void* to, const void* from, int64_t bytes, NativeStream stream) {
  push(of(stream), {[=] { return run_now([&] { std::memmove(to, from, static_cast<size_t>(bytes)); }); }});
}
void copy_async_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
                   int64_t rows, NativeStream stream) {
  push(of(stream), {[=] {
         return run_now([&] {
           for (int64_t row = 0; row < rows; ++row)
             std::memmove(static_cast<char*>(to) + row * to_pitch,
                          static_cast<const char*>(from) + row * from_pitch, static_cast<size_t>(row_bytes));
         });
       }});
}
void set_async(void* to, int value, int64_t bytes, NativeStream stream) {
  push(of(stream), {[=] { return run_now([&] { std::memset(to, value, static_cast<size_t>(bytes)); }); }});
}

void begin_capture(NativeStream stream) {
  check(of(stream).capture == nullptr, "a capture inside a capture");
  of(stream).capture = new std::vector<Work>;
}
NativeGraph end_capture(NativeStream stream) {
  auto* graph = new EmulatedGraph{.works = std::move(*of(stream).capture)};
  delete of(stream).capture;
  of(stream).capture = nullptr;
  return graph;
}
void launch_graph(NativeGraph graph, NativeStream stream) {
  ++device().counts.graph_launches;
  for (const Work& work : static_cast<EmulatedGraph*>(graph)->works) push(of(stream), work);
}
void destroy_graph(NativeGraph graph) noexcept {
  delete static_cast<EmulatedGraph*>(graph);
}

void check_launch(const char*) {}

}  // namespace runtime
}  // namespace ptrain
