#include "kernels/base/stream.h"

#include <cstring>

namespace ptrain {

Event::Event(Device device, bool keeps_time) {
  if (device.kind == DeviceKind::cuda)
    event_ = Handle<runtime::NativeEvent, runtime::destroy_event>(runtime::create_event(keeps_time));
}

void Event::synchronize() const {
  if (event_) runtime::synchronize_event(event_.get());
}

double seconds_between(const Event& begin, const Event& end) {
  return begin.native() == nullptr ? 0 : runtime::seconds_between(begin.native(), end.native());
}

Stream::Stream(Device device, runtime::Priority priority) {
  if (device.kind == DeviceKind::cuda)
    stream_ = Handle<runtime::NativeStream, runtime::destroy_stream>(runtime::create_stream(priority));
}

void Stream::record(const Event& event) const {
  if (stream_) runtime::record(event.native(), stream_.get());
}

void Stream::wait(const Event& event) const {
  if (stream_) runtime::wait(stream_.get(), event.native());
}

void Stream::synchronize() const {
  if (stream_) runtime::synchronize(stream_.get());
}

void transfer(Tensor from, Tensor to, const Stream& stream) {
  check(from.dtype == to.dtype && from.numel() == to.numel() && from.is_contiguous() && to.is_contiguous(),
        "a transfer of {} {} to {} {}", to_string(from.shape), name_of(from.dtype), to_string(to.shape),
        name_of(to.dtype));
  if (from.numel() == 0) return;
  if (from.device.kind == DeviceKind::cpu && to.device.kind == DeviceKind::cpu) {
    std::memcpy(to.data, from.data, static_cast<size_t>(from.bytes()));
  } else {
    runtime::copy_async(to.data, from.data, from.bytes(), stream.native());
  }
}

}  // namespace ptrain
