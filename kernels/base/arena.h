// Memory of a run, granted by name from one Buffer. Everything is taken before the first step.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/buffer.h"

namespace ptrain {

/// Grants tensors one after another, each starting on 64 bytes. Not for freeing: it ends as a whole.
class Arena {
 public:
  static constexpr int64_t alignment = 64;

  struct Grant {
    std::string name;
    int64_t bytes;
  };

  Arena() = default;
  Arena(int64_t bytes, Device device) : Arena(Buffer(bytes, device)) {}
  explicit Arena(Buffer buffer) : buffer_(std::move(buffer)) {}

  /// A zeroed tensor. Errors (defect): the arena was planned too small; the message holds name and both
  /// sizes.
  Tensor take(std::string_view name, Shape shape, DType dtype);

  void* data() const { return buffer_.data(); }
  int64_t capacity_bytes() const { return buffer_.bytes(); }
  int64_t used_bytes() const { return used_; }
  const std::vector<Grant>& grants() const { return grants_; }

 private:
  Buffer buffer_;
  int64_t used_ = 0;
  std::vector<Grant> grants_;
};

/// What take() uses up for `bytes`: rounded up to the alignment. The plan books the same number.
constexpr int64_t arena_bytes(int64_t bytes) {
  return (bytes + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
}

}  // namespace ptrain
