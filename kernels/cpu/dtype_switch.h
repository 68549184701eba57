// The one place where a dtype at run time becomes a type of the arithmetic.
#pragma once

#include "kernels/base/dtype.h"

namespace ptrain::cpu {

/// Calls body.operator()<T>() with the float type that `dtype` computes in. 16- and 8-bit types are storage
/// on a CPU: copy() converts them first.
template <class Body>
void with_float(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::f64:
      return body.template operator()<double>();
    default:
      fail(ExitCode::defect, "CPU arithmetic runs in f32 or f64, not in {}: convert with copy() first",
           name_of(dtype));
  }
}

}  // namespace ptrain::cpu
