// A sum of squares that is the same in any order: of elements, cuts, threads and ranks. Squares of f32
// numbers are integers times a power of two; they are added as integers, in one bin for each exponent. After
// the long accumulators of Kulisch: "Computer arithmetic and validity" (2013), chapter 8, cut in pieces. Not
// the fastest sum: see sum_of_squares in elementwise.h.
#pragma once

#include <bit>

#include "kernels/ops/context.h"

namespace ptrain {

/// Bins of a sum: one for each value of the 8 exponent bits of an f32.
inline constexpr int64_t exact_bins = 256;

/// bins += the squares of x, with Write::overwrite bins = them. Bins of several calls or ranks are added as
/// integers (all_reduce). x: contiguous f32, bf16 or f16   bins: (256, 2) i64 A number with exponent bits e
/// and significand m < 2^24 is m * 2^(max(e, 1) - 150). Bin e holds the sum of the m^2 of its numbers as
/// bins[e, 1] * 2^24 + bins[e, 0]; how it is parted between the two is the op's choice. Bin 255 counts
/// infinities, then NaNs. There is room for 2^38 elements, over all ranks.
void exact_sum_of_squares(Context& context, Tensor x, Tensor bins, Write write = Write::accumulate);

/// total = the sum that the bins hold; infinity or NaN where one was added. The same bits on every device;
/// the error is at most 2^-44 of the total: 257 roundings of numbers that are not negative. bins: (256, 2)
/// i64   total: (1) f64
void exact_total(Context& context, Tensor bins, Tensor total);

/// What bin e < 255 adds to the total.
constexpr double exact_bin_value(int e, int64_t low, int64_t high) {
  // The same two numbers whatever the parting: carries go up.
  const auto upper = static_cast<double>(high + (low >> 24)), lower = static_cast<double>(low & 0xffffff);
  const int exponent = 2 * ((e > 0 ? e : 1) - 150);
  return (upper * 0x1p24 + lower) * std::bit_cast<double>(static_cast<uint64_t>(1023 + exponent) << 52);
}

}  // namespace ptrain
