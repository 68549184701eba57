// The runtime door of a build without CUDA: no devices, and nobody can get as far as using one.
#include "kernels/base/error.h"
#include "kernels/base/runtime.h"

namespace ptrain::runtime {
namespace {

[[noreturn]] void refuse() {
  fail(ExitCode::usage, "this build has no CUDA: run with device: cpu, or build where the CUDA toolkit is");
}

}  // namespace

int device_count() {
  return 0;
}
RuntimeVersions versions() {
  return {};
}
DeviceInfo device_info(int) {
  refuse();
}
bool has_peer_access(int, int) {
  refuse();
}
void use_device(int) {
  refuse();
}
void* allocate(int64_t, MemoryKind, int) {
  refuse();
}
void release(void*, MemoryKind, int) noexcept {}
NativeStream create_stream(Priority) {
  refuse();
}
void destroy_stream(NativeStream) noexcept {}
void synchronize(NativeStream) {
  refuse();
}
NativeEvent create_event(bool) {
  refuse();
}
void destroy_event(NativeEvent) noexcept {}
void record(NativeEvent, NativeStream) {
  refuse();
}
void wait(NativeStream, NativeEvent) {
  refuse();
}
bool is_done(NativeEvent) {
  refuse();
}
void synchronize_event(NativeEvent) {
  refuse();
}
double seconds_between(NativeEvent, NativeEvent) {
  refuse();
}
void copy_async(void*, const void*, int64_t, NativeStream) {
  refuse();
}
void copy_async_2d(void*, int64_t, const void*, int64_t, int64_t, int64_t, NativeStream) {
  refuse();
}
void set_async(void*, int, int64_t, NativeStream) {
  refuse();
}
void begin_capture(NativeStream) {
  refuse();
}
NativeGraph end_capture(NativeStream) {
  refuse();
}
void launch_graph(NativeGraph, NativeStream) {
  refuse();
}
void destroy_graph(NativeGraph) noexcept {}
void check_launch(const char*) {
  refuse();
}

}  // namespace ptrain::runtime
