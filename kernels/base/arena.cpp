#include "kernels/base/arena.h"

namespace ptrain {

Tensor Arena::take(std::string_view name, Shape shape, DType dtype) {
  const int64_t bytes = arena_bytes(shape.numel() * size_bytes(dtype));
  check(used_ + bytes <= buffer_.bytes(), "{} wants {} bytes, but {} of the arena's {} are taken", name,
        bytes, used_, buffer_.bytes());
  Tensor tensor(static_cast<char*>(buffer_.data()) + used_, shape, dtype, buffer_.device());
  used_ += bytes;
  grants_.push_back({std::string(name), bytes});
  return tensor;
}

}  // namespace ptrain
