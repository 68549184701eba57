// What the choice of a matrix product's algorithm depends on, as a value and as text. Knows no library.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include "kernels/base/dtype.h"

namespace ptrain::cuda {

/// c = a b (+ bias) (+ c), column-major: a is (m, k) and b is (k, n) after their transpositions; strides are
/// between columns.
struct GemmKey {
  DType a = DType::f32, b = DType::f32, c = DType::f32;
  bool is_a_transposed = false, is_b_transposed = false;
  int64_t m = 0, n = 0, k = 0;
  int64_t a_stride = 0, b_stride = 0, c_stride = 0;                 // elements
  int64_t a_alignment = 256, b_alignment = 256, c_alignment = 256;  // bytes, of the addresses: up to 256
  bool has_bias = false, accumulates = false;

  auto operator<=>(const GemmKey&) const = default;
};

/// Largest power of two up to 256 that divides an address.
inline int64_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | 256u;
  return static_cast<int64_t>(bits & (~bits + 1));
}

/// "tn.bf16.bf16.f32.4096.8192.512.s512.512.4096.a256.256.16.bias.add"
inline std::string text_of(const GemmKey& key) {
  return fmt::format("{}{}.{}.{}.{}.{}.{}.{}.s{}.{}.{}.a{}.{}.{}{}{}", key.is_a_transposed ? 't' : 'n',
                     key.is_b_transposed ? 't' : 'n', name_of(key.a), name_of(key.b), name_of(key.c), key.m,
                     key.n, key.k, key.a_stride, key.b_stride, key.c_stride, key.a_alignment, key.b_alignment,
                     key.c_alignment, key.has_bias ? ".bias" : "", key.accumulates ? ".add" : "");
}

}  // namespace ptrain::cuda
