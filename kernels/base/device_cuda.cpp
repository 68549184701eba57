// The runtime door of a CUDA build: the one file outside kernels/cuda that sees the CUDA runtime.
#include <cuda_runtime_api.h>

#include "kernels/base/error.h"
#include "kernels/base/runtime.h"

namespace ptrain::runtime {
namespace {

void expect(cudaError_t result, const char* what) {
  check(result == cudaSuccess, ExitCode::resources, "CUDA: {} failed: {} ({})", what,
        cudaGetErrorString(result), cudaGetErrorName(result));
}

cudaStream_t stream_of(NativeStream stream) {
  return static_cast<cudaStream_t>(stream);
}
cudaEvent_t event_of(NativeEvent event) {
  return static_cast<cudaEvent_t>(event);
}

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // it would be told again by the next launch
    return 0;
  }
  return count;
}

RuntimeVersions versions() {
  RuntimeVersions versions{.toolkit = CUDART_VERSION};
  if (cudaDriverGetVersion(&versions.driver) != cudaSuccess) versions.driver = 0;
  return versions;
}

DeviceInfo device_info(int index) {
  cudaDeviceProp properties{};
  expect(cudaGetDeviceProperties(&properties, index), "reading the properties of a device");
  DeviceInfo info{.name = properties.name,
                  .total_bytes = static_cast<int64_t>(properties.totalGlobalMem),
                  .major = properties.major,
                  .minor = properties.minor,
                  .multiprocessors = properties.multiProcessorCount};
  char bus[32] = {};
  expect(cudaDeviceGetPCIBusId(bus, sizeof bus, index), "reading a device's PCI address");
  info.pci_bus_id = bus;
  size_t free_bytes = 0, total_bytes = 0;
  int current = 0;
  expect(cudaGetDevice(&current), "asking for the current device");
  expect(cudaSetDevice(index), "choosing a device");
  expect(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
  expect(cudaSetDevice(current), "choosing a device");
  info.free_bytes = static_cast<int64_t>(free_bytes);
  return info;
}

bool has_peer_access(int from, int to) {
  int has_access = 0;
  expect(cudaDeviceCanAccessPeer(&has_access, from, to), "asking whether a device reaches another");
  return has_access != 0;
}
void use_device(int index) {
  expect(cudaSetDevice(index), "choosing a device");
}

void* allocate(int64_t bytes, MemoryKind kind, int index) {
  void* data = nullptr;
  const auto size = static_cast<size_t>(bytes);
  use_device(index);
  const cudaError_t result =
      kind == MemoryKind::device ? cudaMalloc(&data, size) : cudaMallocHost(&data, size);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    expect(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
    fail(ExitCode::resources, "no {} memory for {} bytes on GPU {}: it has {} bytes, {} are free",
         kind == MemoryKind::device ? "device" : "pinned host", bytes, index, total_bytes, free_bytes);
  }
  expect(result, "an allocation");
  expect(cudaMemset(data, 0, size), "zeroing an allocation");
  // It runs on the default stream, which ours do not wait for: it must not fall upon what they write.
  expect(cudaStreamSynchronize(nullptr), "zeroing an allocation");
  return data;
}

void release(void* data, MemoryKind kind, int) noexcept {
  // At the end of a process the driver may be gone before its last buffers: nothing is left to mend then.
  if (kind == MemoryKind::device) {
    cudaFree(data);
  } else {
    cudaFreeHost(data);
  }
}

NativeStream create_stream(Priority priority) {
  int least = 0, greatest = 0;
  expect(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for stream priorities");
  cudaStream_t stream = nullptr;
  expect(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                      priority == Priority::high ? greatest : least),
         "making a stream");
  return stream;
}
void destroy_stream(NativeStream stream) noexcept {
  cudaStreamDestroy(stream_of(stream));
}
void synchronize(NativeStream stream) {
  expect(cudaStreamSynchronize(stream_of(stream)), "work on the device");
}

NativeEvent create_event(bool keeps_time) {
  cudaEvent_t event = nullptr;
  expect(cudaEventCreateWithFlags(&event, keeps_time ? cudaEventDefault : cudaEventDisableTiming),
         "making an event");
  return event;
}
void destroy_event(NativeEvent event) noexcept {
  cudaEventDestroy(event_of(event));
}
void record(NativeEvent event, NativeStream stream) {
  expect(cudaEventRecord(event_of(event), stream_of(stream)), "recording an event");
}
void wait(NativeStream stream, NativeEvent event) {
  expect(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "waiting for an event");
}
bool is_done(NativeEvent event) {
  const cudaError_t result = cudaEventQuery(event_of(event));
  if (result == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  expect(result, "work on the device");
  return true;
}
void synchronize_event(NativeEvent event) {
  expect(cudaEventSynchronize(event_of(event)), "work on the device");
}
double seconds_between(NativeEvent begin, NativeEvent end) {
  float milliseconds = 0;
  expect(cudaEventElapsedTime(&milliseconds, event_of(begin), event_of(end)), "reading a time");
  return static_cast<double>(milliseconds) * 1e-3;
}

void copy_async(void* to, const void* from, int64_t bytes, NativeStream stream) {
  expect(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_of(stream)),
         "a copy");
}
void copy_async_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
                   int64_t rows, NativeStream stream) {
  expect(cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from, static_cast<size_t>(from_pitch),
                           static_cast<size_t>(row_bytes), static_cast<size_t>(rows), cudaMemcpyDefault,
                           stream_of(stream)),
         "a copy of rows");
}
void set_async(void* to, int value, int64_t bytes, NativeStream stream) {
  expect(cudaMemsetAsync(to, value, static_cast<size_t>(bytes), stream_of(stream)), "filling memory");
}

void begin_capture(NativeStream stream) {
  expect(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal), "beginning a capture");
}
NativeGraph end_capture(NativeStream stream) {
  cudaGraph_t graph = nullptr;
  expect(cudaStreamEndCapture(stream_of(stream), &graph), "ending a capture");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t result = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  expect(result, "making a captured graph runnable");
  return executable;
}
void launch_graph(NativeGraph graph, NativeStream stream) {
  expect(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)), "running a captured graph");
}
void destroy_graph(NativeGraph graph) noexcept {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

void check_launch(const char* what) {
  expect(cudaGetLastError(), what);
}

}  // namespace ptrain::runtime
