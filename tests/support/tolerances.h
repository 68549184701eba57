// How far a result may be from its oracle: one table for all tests, with the error model behind each number.
// Not a place to make a failing test pass: a tolerance raised for that is a bug found.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/convert.h"

namespace ptrain::tolerance {

/// Spacing of the numbers of T near 1: a single rounding errs by half of it.
template <class T>
inline constexpr double unit = static_cast<double>(std::numeric_limits<T>::epsilon());
template <>
inline constexpr double unit<BFloat16> = 0x1p-7;
template <>
inline constexpr double unit<Float16> = 0x1p-10;

/// 16 bits are storage: the arithmetic is that of f32, whose error is given, and the result is rounded once.
template <class T>
constexpr double stored(double wide_error) {
  return cpu::is_narrow<T> ? unit<T> / 2 + wide_error : wide_error;
}

/// Element-wise formulas of a few roundings, each of at most 1/2 unit, and an exp() of at most 2 units:
/// |error| <= 8 units of the largest entry.
template <class T>
inline constexpr double elementwise = stored<T>(8 * unit<cpu::Wide<T>>);

/// A sum of `length` products in T: rounding errors are random in sign, so they grow with the square root of
/// the length (Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1); factor 4 for the
/// tail. Relative to the largest entry of the result, which for random operands is a few standard deviations.
template <class T>
double dot(int64_t length) {
  return stored<T>(4 * unit<cpu::Wide<T>> * std::sqrt(static_cast<double>(length)));
}

/// Attention: two chained products (of lengths D and T) with a softmax between them. The error of a score
/// enters the exponent, where it is absolute: scores of size up to 8 lose 8 units a product.
template <class T>
double attention(int64_t D, int64_t T_length) {
  using Wide = cpu::Wide<T>;
  return stored<T>(8 * dot<Wide>(D) + dot<Wide>(T_length));
}

/// Gradients of attention: delta = out . dout reads an output of 16 bits, whose roundings have random signs
/// and leave half a unit of the largest delta; that enters the gradients by q and k as a second error of the
/// size of a rounding, and twice that is its tail.
template <class T>
double attention_backward(int64_t D, int64_t T_length) {
  return attention<T>(D, T_length) + (cpu::is_narrow<T> ? unit<T> : 0);
}

/// Central differences in f64 with step h: truncation h^2 f''' / 6 plus rounding unit * f / h; with h = 1e-5
/// and f of size 1 to 100 both stay below 1e-8 of f. Relative to the largest entry of the gradient.
inline constexpr double central_difference_step = 1e-5;
inline constexpr double gradient_check = 2e-7;

/// Against the golden cases (float64): the demand of the project on fp32. An independent fp32 implementation
/// stays within 6e-6 of the largest entry and, along a curve, 4e-7 of a loss and 1e-5 of a norm.
inline constexpr double golden = 2e-5;            // of the tensor's largest entry
inline constexpr double golden_loss = 5e-6;       // relative
inline constexpr double golden_grad_norm = 5e-5;  // relative

/// A small model in bf16 (unit 2^-8, the coarser of the two) against itself in fp32 or on another device:
/// every activation errs by half a unit, the errors are random in sign and mostly cancel in a loss over
/// hundreds of tokens: one unit is allowed; of a norm, where they add up as squares, four.
inline constexpr double half_loss = 0x1p-8;       // relative
inline constexpr double half_grad_norm = 0x1p-6;  // relative

/// Products of E4M3 operands (unit 2^-3, half of it a rounding) of which a sum of dozens is taken: a few per
/// cent of an activation, which a residual stream of few layers passes on in part.
inline constexpr double fp8_loss = 0x1p-5;  // relative

}  // namespace ptrain::tolerance
