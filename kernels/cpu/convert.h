// Conversion of single float values between storage types. To nearest, ties to even; NaN stays NaN; too large
// becomes infinity, but of 8 bits the largest finite value. Loops over these functions vectorise.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/base/dtype.h"
#include "kernels/base/float16.h"

namespace ptrain::cpu {

using ptrain::BFloat16;
using ptrain::Float16;
using ptrain::to_bfloat16;
using ptrain::to_float16;
using ptrain::widen;

/// 8-bit floats after Micikevicius et al.: "FP8 formats for deep learning" (2022): the bits only. E4M3 has no
/// infinities and one NaN of either sign.
struct Float8E4M3 {
  uint8_t bits;
};
struct Float8E5M2 {
  uint8_t bits;
};

/// Storage narrower than what a CPU computes with.
template <class S>
inline constexpr bool is_narrow = sizeof(S) < sizeof(float);

/// What elements of S are computed with.
template <class S>
using Wide = std::conditional_t<std::is_same_v<S, double>, double, float>;

inline float widen(float x) {
  return x;
}
inline double widen(double x) {
  return x;
}

/// f64 to f32 such that a second rounding to fewer bits ends where a single one would: an inexact result gets
/// its last bit set ("round to odd").
inline float to_float_odd(double x) {
  const float nearest = static_cast<float>(x);
  const double back = static_cast<double>(nearest);
  if (back == x || std::isnan(x) || std::isinf(nearest)) return nearest;
  const uint32_t bits = std::bit_cast<uint32_t>(nearest);
  // One step towards zero where rounding went away from zero, then the odd bit.
  const uint32_t truncated = std::fabs(back) > std::fabs(x) ? bits - 1 : bits;
  return std::bit_cast<float>(truncated | 1u);
}

/// E5M2 is the upper half of an f16.
inline float widen(Float8E5M2 x) {
  return widen(Float16{static_cast<uint16_t>(x.bits << 8)});
}

/// As for f16: 4 exponent and 3 mantissa bits, whose bias is 120 less than a float's.
inline float widen(Float8E4M3 x) {
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fu) << 20;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x80u) << 24;
  const float value = std::bit_cast<float>(magnitude) * 0x1p120f;
  const uint32_t bits = magnitude == (0x7fu << 20) ? 0x7fc00000u : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(bits | sign);
}

/// The bits of |x|, saturated at `largest`, in a format of `mantissa` bits with exponents biased by `bias`;
/// not for NaN. Below the smallest normal number, adding 2^(24 - bias - mantissa) rounds to a multiple of the
/// subnormals' step and leaves it in the low bits.
template <int mantissa, int bias>
inline uint32_t saturated_bits(float x, float largest) {
  constexpr uint32_t dropped = 23 - mantissa, smallest_normal = (128u - bias) << 23;
  constexpr float magic = std::bit_cast<float>((127u + 24u - bias - mantissa) << 23);
  const float bounded = std::fabs(x) < largest ? std::fabs(x) : largest;
  const uint32_t bits = std::bit_cast<uint32_t>(bounded);
  const uint32_t tiny = std::bit_cast<uint32_t>(bounded + magic) - std::bit_cast<uint32_t>(magic);
  const uint32_t rounded = bits + ((1u << (dropped - 1)) - 1u) + ((bits >> dropped) & 1u);
  return bits < smallest_normal ? tiny : (rounded - ((127u - bias) << 23)) >> dropped;
}

inline Float8E4M3 to_float8_e4m3(float x) {
  const uint32_t sign = std::bit_cast<uint32_t>(x) >> 24 & 0x80u;
  const uint32_t bits = std::isnan(x) ? 0x7fu : saturated_bits<3, 7>(x, 448.0f);
  return {static_cast<uint8_t>(sign | bits)};
}

inline Float8E5M2 to_float8_e5m2(float x) {
  const uint32_t sign = std::bit_cast<uint32_t>(x) >> 24 & 0x80u;
  const uint32_t bits = std::isnan(x) ? 0x7fu : saturated_bits<2, 15>(x, 57344.0f);
  return {static_cast<uint8_t>(sign | bits)};
}

template <class To>
inline To from_float(float x) {
  if constexpr (std::is_same_v<To, BFloat16>) {
    return to_bfloat16(x);
  } else if constexpr (std::is_same_v<To, Float16>) {
    return to_float16(x);
  } else if constexpr (std::is_same_v<To, Float8E4M3>) {
    return to_float8_e4m3(x);
  } else {
    static_assert(std::is_same_v<To, Float8E5M2>);
    return to_float8_e5m2(x);
  }
}

/// The one conversion between any two element types, rounded once.
template <class To, class From>
inline To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (is_narrow<From>) {
    return convert<To>(widen(x));
  } else if constexpr (!is_narrow<To>) {
    return static_cast<To>(x);
  } else if constexpr (std::is_same_v<From, double>) {
    return from_float<To>(to_float_odd(x));
  } else {
    return from_float<To>(x);
  }
}

}  // namespace ptrain::cpu

namespace ptrain {

template <>
inline constexpr DType dtype_of<BFloat16> = DType::bf16;
template <>
inline constexpr DType dtype_of<Float16> = DType::f16;
template <>
inline constexpr DType dtype_of<cpu::Float8E4M3> = DType::f8_e4m3;
template <>
inline constexpr DType dtype_of<cpu::Float8E5M2> = DType::f8_e5m2;

}  // namespace ptrain
