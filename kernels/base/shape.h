// The extents of a tensor: up to four dimensions, a value without heap memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/base/error.h"

namespace ptrain {

class Shape {
 public:
  static constexpr int max_dims = 4;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> extents) {
    for (int64_t extent : extents) push_back(extent);
  }

  constexpr int dims() const { return dims_; }
  /// Extent of dimension `dim`; negative counts from the end.
  constexpr int64_t operator[](int dim) const {
    return extents_[static_cast<size_t>(dim < 0 ? dims_ + dim : dim)];
  }
  constexpr void set(int dim, int64_t extent) {
    extents_[static_cast<size_t>(dim < 0 ? dims_ + dim : dim)] = extent;
  }
  constexpr void push_back(int64_t extent) {
    if (dims_ == max_dims) fail(ExitCode::defect, "a tensor has at most {} dimensions", int{max_dims});
    extents_[static_cast<size_t>(dims_++)] = extent;
  }

  /// Number of elements; 1 for a scalar (no dimensions).
  constexpr int64_t numel() const {
    int64_t n = 1;
    for (int dim = 0; dim < dims_; ++dim) n *= extents_[static_cast<size_t>(dim)];
    return n;
  }
  /// Product of all extents but the last; 1 for a vector.
  constexpr int64_t rows() const {
    int64_t n = 1;
    for (int dim = 0; dim + 1 < dims_; ++dim) n *= extents_[static_cast<size_t>(dim)];
    return n;
  }
  /// Extent of the last dimension; 1 for a scalar.
  constexpr int64_t columns() const { return dims_ == 0 ? 1 : (*this)[-1]; }

  constexpr bool operator==(const Shape& other) const {
    if (dims_ != other.dims_) return false;
    for (int dim = 0; dim < dims_; ++dim) {
      if ((*this)[dim] != other[dim]) return false;
    }
    return true;
  }

 private:
  std::array<int64_t, max_dims> extents_{};
  int dims_ = 0;
};

/// "(2, 7, 24)"
inline std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (int dim = 0; dim < shape.dims(); ++dim) text += (dim ? ", " : "") + std::to_string(shape[dim]);
  return text + ")";
}

}  // namespace ptrain
