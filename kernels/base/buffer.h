// The only thing that calls an allocator for tensor memory.
#pragma once

#include <cstdint>

#include "kernels/base/tensor.h"

namespace ptrain {

/// Zeroed bytes of a device, aligned to 64 (on the host to 2 MiB from 2 MiB up), move-only. Memory that was
/// never touched costs no pages. Errors: ExitCode::resources with the number of bytes when the machine has no
/// such memory.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes, Device device = {});
  /// Host memory that `device` copies from and to while the host goes on: pinned for a GPU.
  static Buffer staging(int64_t bytes, Device device);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Device device_;
  bool is_pinned_ = false;
};

/// A Buffer and one tensor over all of it: for tests, set-up and small things. Step memory comes from an
/// Arena.
struct OwnedTensor {
  OwnedTensor() = default;
  OwnedTensor(Shape shape, DType dtype, Device device = {})
      : buffer(shape.numel() * size_bytes(dtype), device), view(buffer.data(), shape, dtype, device) {}

  Buffer buffer;
  Tensor view;
};

}  // namespace ptrain
