// 16-bit floats as the bits they are: storage on a CPU, with their conversion from and to f32: to nearest,
// ties to even; NaN stays NaN; too large becomes infinity.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ptrain {

/// 16-bit storage: the bits only.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline float widen(BFloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

/// f16 has 5 exponent and 10 mantissa bits. Shifted into place of a float's, the value is 2^-112 of what is
/// meant (the difference of the exponent biases): one multiplication mends it, subnormals included.
inline float widen(Float16 x) {
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t bits =
      magnitude >= (0x7c00u << 13) ? magnitude | 0x7f800000u : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(bits | sign);
}

inline BFloat16 to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

inline Float16 to_float16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u)
    return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65520 and up round to infinity
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 rounds to a multiple of 2^-24, the subnormals' step, and leaves it in the low
    // bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f)))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
}

}  // namespace ptrain
