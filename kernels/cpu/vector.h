// One machine register of numbers, for the few loops that the compiler does not vectorise well by itself.
// Plain C++ with the compiler's vector types: no instruction set is named.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/convert.h"

namespace ptrain::cpu {

/// Bytes of the widest vector register of the target: 64 with AVX-512, 32 with AVX, 16 otherwise.
inline constexpr int64_t vector_bytes = __BIGGEST_ALIGNMENT__;
/// Registers for sums that a kernel may count on: the target's number less those for its operands.
inline constexpr int64_t accumulators = vector_bytes == 64 ? 16 : 8;

/// Numbers of T in a register.
template <class T>
inline constexpr int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(T));

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(vector_bytes)));
};
template <class T>
using Vector = typename VectorOf<T>::Type;

/// From and to any address.
template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class T>
inline void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}

/// Numbers of a storage type, widened as convert.h does it.
template <class S>
inline Vector<Wide<S>> load_wide(const S* from) {
  if constexpr (!is_narrow<S>) {
    return load(from);
  } else {
    typedef uint16_t Half __attribute__((vector_size(vector_bytes / 2)));
    using Words = Vector<uint32_t>;
    Half half;
    std::memcpy(&half, from, sizeof half);
    const Words bits = __builtin_convertvector(half, Words);
    if constexpr (std::is_same_v<S, BFloat16>) {
      return std::bit_cast<Vector<float>>(bits << 16);
    } else {
      static_assert(std::is_same_v<S, Float16>);
      const Words magnitude = (bits & 0x7fffu) << 13, sign = (bits & 0x8000u) << 16;
      const Words value = std::bit_cast<Words>(std::bit_cast<Vector<float>>(magnitude) * 0x1p112f);
      const Words is_special = (magnitude + (1u << 23)) >> 28;  // 1 of infinity and NaN, else 0
      return std::bit_cast<Vector<float>>(value | ((0u - is_special) & 0x7f800000u) | sign);
    }
  }
}

/// Halves are added until one number is left: the order of the sum is fixed.
template <class T>
inline T sum_of(Vector<T> v) {
  T parts[lanes<T>];
  store(parts, v);
  for (int64_t width = lanes<T> / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) parts[i] += parts[i + width];
  }
  return parts[0];
}

}  // namespace ptrain::cpu
