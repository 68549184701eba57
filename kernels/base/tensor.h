// A trivially copyable view of a row-major tensor. It owns nothing: Buffer and Arena do.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/shape.h"

namespace ptrain {

/// Element (i, j) of the tensor seen as a matrix (rows = all dimensions but the last) lies at data + i *
/// row_stride + j. row_stride is larger than the last extent only for column views, such as the q of a fused
/// qkv.
struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  Device device;
  int64_t row_stride = 0;  // elements

  Tensor() = default;
  /// A contiguous view of `data`.
  Tensor(void* data, Shape shape, DType dtype, Device device = {})
      : data(data), shape(shape), dtype(dtype), device(device), row_stride(shape.columns()) {}

  int64_t numel() const { return shape.numel(); }
  int64_t rows() const { return shape.rows(); }
  int64_t columns() const { return shape.columns(); }
  int64_t bytes() const { return numel() * size_bytes(dtype); }
  bool is_contiguous() const { return row_stride == columns() || rows() == 1; }
  explicit operator bool() const { return data != nullptr; }

  /// The elements as T; T must be the tensor's dtype.
  template <class T>
  T* as() const {
    check(dtype == dtype_of<std::remove_const_t<T>>, "tensor holds {}, was read as {}", name_of(dtype),
          name_of(dtype_of<std::remove_const_t<T>>));
    return static_cast<T*>(data);
  }
  /// Address of element `element` of a contiguous tensor.
  void* at(int64_t element) const { return static_cast<char*>(data) + element * size_bytes(dtype); }
  /// All elements of a contiguous tensor.
  template <class T>
  std::span<T> span() const {
    check(is_contiguous(), "a column view has no span");
    return {as<T>(), static_cast<size_t>(numel())};
  }

  /// Rows [begin, begin + count) of the tensor seen as a matrix.
  Tensor row_range(int64_t begin, int64_t count) const {
    Tensor view = *this;
    view.data = static_cast<char*>(data) + begin * row_stride * size_bytes(dtype);
    view.shape = Shape{count, columns()};
    return view;
  }
  /// Columns [begin, begin + count) of the tensor seen as a matrix; keeps the row stride.
  Tensor column_range(int64_t begin, int64_t count) const {
    Tensor view = *this;
    view.data = static_cast<char*>(data) + begin * size_bytes(dtype);
    view.shape = Shape{rows(), count};
    return view;
  }
  /// The same elements under another shape; the tensor must be contiguous.
  Tensor reshaped(Shape other) const {
    check(is_contiguous() && other.numel() == numel(), "cannot see {} as {}", to_string(shape),
          to_string(other));
    return Tensor(data, other, dtype, device);
  }
};

}  // namespace ptrain
