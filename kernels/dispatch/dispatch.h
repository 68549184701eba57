// What every file of kernels/dispatch needs: the choice of the device's twin and the checks of shapes, made
// once for all devices.
#pragma once

#include <string_view>

#include "kernels/ops/context.h"

namespace ptrain {

/// Calls the twin of the context's device.
template <class Cpu, class Cuda>
void on_device(const Context& context, std::string_view op, const Cpu& cpu, const Cuda& cuda) {
  switch (context.device.kind) {
    case DeviceKind::cpu:
      return cpu();
    case DeviceKind::cuda:
      check(context.stream != nullptr, "{}: a GPU's context without a stream", op);
      return cuda();
  }
}

/// The op and the tensor of a message.
struct Operand {
  std::string_view op;
  std::string_view name;
  const Tensor& tensor;
};

/// The tensor, seen as a matrix, is (rows, columns) of that dtype.
inline void expect_matrix(const Operand& x, int64_t rows, int64_t columns, DType dtype) {
  const Tensor& t = x.tensor;
  check(t.rows() == rows && t.columns() == columns, "{}: {} is {}, expected ({}, {})", x.op, x.name,
        to_string(t.shape), rows, columns);
  check(t.dtype == dtype, "{}: {} is {}, expected {}", x.op, x.name, name_of(t.dtype), name_of(dtype));
  check(t.data != nullptr || rows * columns == 0, "{}: {} has no memory", x.op, x.name);
  check(t.row_stride >= columns || rows <= 1, "{}: rows of {} overlap: {} columns, stride {}", x.op, x.name,
        columns, t.row_stride);
}

/// Gradients of weights may be kept wider than what they are the sum of.
inline void expect_gradient(const Operand& x, DType dtype) {
  check(x.tensor.dtype == dtype || x.tensor.dtype == wide(dtype), "{}: {} is {}, expected {} or {}", x.op,
        x.name, name_of(x.tensor.dtype), name_of(dtype), name_of(wide(dtype)));
}

/// The tensor has that many elements of that dtype, one after another.
inline void expect_elements(const Operand& x, int64_t count, DType dtype) {
  const Tensor& t = x.tensor;
  check(t.numel() == count && t.is_contiguous(),
        "{}: {} is {} with row stride {}, expected {} contiguous elements", x.op, x.name, to_string(t.shape),
        t.row_stride, count);
  check(t.dtype == dtype, "{}: {} is {}, expected {}", x.op, x.name, name_of(t.dtype), name_of(dtype));
  check(t.data != nullptr || count == 0, "{}: {} has no memory", x.op, x.name);
}

}  // namespace ptrain
