// The door to a device's runtime: memory, queues, events, captured graphs. One of three files defines it:
// device_cuda.cpp, device_absent.cpp (a build without CUDA), or the emulated device of the tests.
// Not for arithmetic: see kernels/ops.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/base/device.h"

namespace ptrain::runtime {

/// What a device says of itself.
struct DeviceInfo {
  std::string name;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;    // now, over all processes
  int major = 0, minor = 0;  // compute capability: sm_90 is 9, 0
  int multiprocessors = 0;
  std::string pci_bus_id;  // "0000:17:00.0"
};

/// What is built in and what the machine has; versions as the libraries count them (13000 = 13.0), 0 where
/// there is none.
struct RuntimeVersions {
  int toolkit = 0;  // the CUDA runtime of this build
  int driver = 0;   // newest toolkit that the installed driver serves
};

enum class MemoryKind : uint8_t { device, pinned };
enum class Priority : uint8_t { normal, high };

using NativeStream = void*;
using NativeEvent = void*;
using NativeGraph = void*;

/// Devices that can be used, 0 without a driver. Never throws.
int device_count();
RuntimeVersions versions();
/// Errors (resources): no such device.
DeviceInfo device_info(int index);
/// Whether kernels on device `from` can reach the memory of device `to`: over NVLink, or PCIe where its
/// bridges allow.
bool has_peer_access(int from, int to);
/// Makes the device current for the calling thread.
void use_device(int index);

/// Errors (resources): not enough memory, with the bytes asked for and those free. Zeroed.
void* allocate(int64_t bytes, MemoryKind kind, int index);
void release(void* data, MemoryKind kind, int index) noexcept;

NativeStream create_stream(Priority priority);
void destroy_stream(NativeStream stream) noexcept;
/// Returns after everything enqueued has run. Errors (defect): what ran wrong on the device.
void synchronize(NativeStream stream);

NativeEvent create_event(bool keeps_time);
void destroy_event(NativeEvent event) noexcept;
void record(NativeEvent event, NativeStream stream);
/// What is enqueued on `stream` from now on runs after the event's last record.
void wait(NativeStream stream, NativeEvent event);
bool is_done(NativeEvent event);
void synchronize_event(NativeEvent event);
/// Seconds between two events that keep time and are done.
double seconds_between(NativeEvent begin, NativeEvent end);

/// Enqueues a copy; the direction follows from the addresses. Host memory that is not pinned may make the
/// caller wait.
void copy_async(void* to, const void* from, int64_t bytes, NativeStream stream);
void copy_async_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
                   int64_t rows, NativeStream stream);
void set_async(void* to, int value, int64_t bytes, NativeStream stream);

/// Between begin and end, what is enqueued on the stream is recorded and not run.
void begin_capture(NativeStream stream);
NativeGraph end_capture(NativeStream stream);
void launch_graph(NativeGraph graph, NativeStream stream);
void destroy_graph(NativeGraph graph) noexcept;

/// Throws where the last kernel launch was refused.  `what`: the kernel's or op's name.
void check_launch(const char* what);

}  // namespace ptrain::runtime
