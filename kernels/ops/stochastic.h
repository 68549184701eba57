// Stochastic rounding from f32 to 16 bits: up or down with chances that make the mean right, by a hash of
// seed and index, so that every device and every cut over ranks draws the same bits. Not for anything secret.
#pragma once

#include <bit>
#include <cstdint>

namespace ptrain {

/// 32 random bits for one element: two rounds of multiply and shift over both numbers.
constexpr uint32_t rounding_bits(uint64_t seed, uint64_t index) {
  uint64_t x = seed ^ (index + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
  return static_cast<uint32_t>(x >> 32);
}

/// The bits of a bf16 next to x. Infinity and NaN stay.
constexpr uint16_t stochastic_bf16(float x, uint32_t random) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x7f800000u)
    return static_cast<uint16_t>((bits >> 16) | (magnitude > 0x7f800000u ? 0x40u : 0u));
  return static_cast<uint16_t>((bits + (random >> 16)) >> 16);
}

/// The bits of an f16 next to x. Infinity and NaN stay; what lies above the largest f16 becomes infinity.
constexpr uint16_t stochastic_f16(float x, uint32_t random) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and up
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the neighbours are multiples of 2^-24.
    const float units = std::bit_cast<float>(magnitude) * 0x1p24f;
    const uint32_t whole = static_cast<uint32_t>(units);
    const bool is_up = (units - static_cast<float>(whole)) * 0x1p24f > static_cast<float>(random >> 8);
    return static_cast<uint16_t>(sign | (whole + is_up));
  }
  return static_cast<uint16_t>(sign | ((magnitude + (random >> 19) - (112u << 23)) >> 13));
}

}  // namespace ptrain
