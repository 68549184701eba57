// The one place where a dtype at run time becomes an element type.
#pragma once

#include "kernels/cpu/convert.h"

namespace ptrain::cpu {

/// Calls body.operator()<T>() with f32 or f64: for what is kept as it is computed, such as statistics.
template <class Body>
void with_float(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::f64:
      return body.template operator()<double>();
    default:
      fail(ExitCode::defect, "statistics on a CPU are f32 or f64, not {}", name_of(dtype));
  }
}

/// Calls body.operator()<S>() with the element type of an operand. 16-bit types are storage: numbers are
/// widened where they are read, computed with as Wide<S>, and rounded once where they are written.
template <class Body>
void with_storage(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::bf16:
      return body.template operator()<BFloat16>();
    case DType::f16:
      return body.template operator()<Float16>();
    case DType::f32:
      return body.template operator()<float>();
    case DType::f64:
      return body.template operator()<double>();
    default:
      fail(ExitCode::defect, "CPU arithmetic takes f64, f32, bf16 and f16, not {}: convert with copy() first",
           name_of(dtype));
  }
}

/// Calls body.operator()<Q>() with the element type of an 8-bit float.
template <class Body>
void with_float8(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f8_e4m3:
      return body.template operator()<Float8E4M3>();
    case DType::f8_e5m2:
      return body.template operator()<Float8E5M2>();
    default:
      fail(ExitCode::defect, "expected f8_e4m3 or f8_e5m2, not {}", name_of(dtype));
  }
}

/// Calls body.operator()<S, G>() with the element types of operands and of a weight's gradient: the same, or
/// f32 where the operands are 16 bits wide.
template <class Body>
void with_gradient(DType operands, DType gradient, const Body& body) {
  with_storage(operands, [&]<class S>() {
    if (gradient == operands) return body.template operator()<S, S>();
    if constexpr (is_narrow<S>) {
      if (gradient == DType::f32) return body.template operator()<S, float>();
    }
    fail(ExitCode::defect, "a gradient of {} for operands of {}", name_of(gradient), name_of(operands));
  });
}

}  // namespace ptrain::cpu
