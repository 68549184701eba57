// In-order queues of a device and marks in them. On a CPU both are empty: what is asked of it happens at
// once, so every call here does nothing.
#pragma once

#include <memory>

#include "kernels/base/handle.h"
#include "kernels/base/runtime.h"
#include "kernels/base/tensor.h"

namespace ptrain {

/// A mark in a stream: done when everything enqueued before its record() has run.
class Event {
 public:
  Event() = default;  // of a CPU
  explicit Event(Device device, bool keeps_time = false);

  runtime::NativeEvent native() const { return event_.get(); }
  bool is_done() const { return !event_ || runtime::is_done(event_.get()); }
  /// The host waits.
  void synchronize() const;

 private:
  Handle<runtime::NativeEvent, runtime::destroy_event> event_;
};

/// Seconds between two events that keep time.
double seconds_between(const Event& begin, const Event& end);

class Stream {
 public:
  Stream() = default;  // of a CPU
  explicit Stream(Device device, runtime::Priority priority = runtime::Priority::normal);

  runtime::NativeStream native() const { return stream_.get(); }
  explicit operator bool() const { return static_cast<bool>(stream_); }
  void record(const Event& event) const;
  /// What is enqueued here from now on runs after `event`.
  void wait(const Event& event) const;
  /// The host waits until everything enqueued has run.
  void synchronize() const;

 private:
  Handle<runtime::NativeStream, runtime::destroy_stream> stream_;
};

/// to = from, on any devices; both contiguous, of equal dtype and number of elements. Enqueued on `stream`
/// where one of them is on a device (and the host waits where `from` or `to` is host memory that is not
/// pinned); else done at once.
void transfer(Tensor from, Tensor to, const Stream& stream);

/// A sequence of enqueued work that is run again and again with one call. Empty until captured.
class Graph {
 public:
  explicit operator bool() const { return static_cast<bool>(graph_); }
  /// Records what `work` enqueues on `stream`, without running it.
  template <class Work>
  void capture(const Stream& stream, const Work& work) {
    runtime::begin_capture(stream.native());
    work();
    graph_ = Handle<runtime::NativeGraph, runtime::destroy_graph>(runtime::end_capture(stream.native()));
  }
  void launch(const Stream& stream) const { runtime::launch_graph(graph_.get(), stream.native()); }

 private:
  Handle<runtime::NativeGraph, runtime::destroy_graph> graph_;
};

}  // namespace ptrain
