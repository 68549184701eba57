// Values of one float type as those of another, for bytes on their way from and to files. Not for tensors in
// use: kernels/ops/elementwise.h copies those, with threads and on every device.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/base/dtype.h"

namespace ptrain {

/// destination[i] = source[i] to nearest even, for f64, f32, bf16 and f16; equal dtypes of any kind are
/// copied byte for byte. Errors (ExitCode::input): another pair, by name.
void convert_elements(const void* source, DType from, void* destination, DType to, int64_t count);

/// The dtype of a user's word: "f32", "fp32", "float32", "bf16", "bfloat16", "f16", "fp16", "float16".
std::optional<DType> float_dtype_of(std::string_view name);
/// As config.json writes it: "float32", "bfloat16", "float16", "float64".
std::string_view torch_name(DType dtype);

}  // namespace ptrain
