// Elementary functions that a compiler can vectorise. Not for arguments where exp() overflows: results
// saturate there.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ptrain::cpu {

/// exp(x) within 2 units in the last place; 0 below -87.33 (no subnormals), about 2.4e38 from 88.37 up; NaN
/// stays. exp(x) = 2^n exp(r) with n = round(x / ln 2), |r| <= ln(2) / 2, and the Taylor series of exp(r) to
/// r^7, whose remainder is 1e-8.
inline float vector_exp(float x) {
  constexpr float lowest = -87.33f, highest = 88.37f;
  constexpr float log2_e = 1.44269504f;
  constexpr float ln2_high = 0.693359375f;    // 9 bits: n * ln2_high is exact
  constexpr float ln2_low = -2.12194440e-4f;  // ln 2 - ln2_high
  constexpr float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves a rounded integer in the low bits
  const float bounded = x > highest ? highest : (x < lowest ? lowest : x);
  const float shifted = bounded * log2_e + to_integer;
  const float n = shifted - to_integer;
  const float r = (bounded - n * ln2_high) - n * ln2_low;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  // 2^n from its exponent bits: the low bits of `shifted` hold n, the constant's own bits leave by the shift.
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  const float value = series * std::bit_cast<float>(exponent);
  return x < lowest ? 0.0f : value;
}

/// The f64 instances serve gradient checks: accuracy before speed.
inline double vector_exp(double x) {
  return std::exp(x);
}

template <class T>
inline T sigmoid(T x) {
  return T{1} / (T{1} + vector_exp(-x));
}

}  // namespace ptrain::cpu
