// One number for all bits of a tensor: the same on every device, for any number of threads and in any order.
// Finds what memory or arithmetic did wrong; not made against forgery. For files: kernels/base/crc32c.h.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// What element i adds, modulo 2^64. For one i each step can be undone, so other bits add another number. The
/// constants are those of Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
constexpr uint64_t checksum_term(uint64_t bits, uint64_t i) {
  uint64_t h = bits ^ (i * 0x9e3779b97f4a7c15u);
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

/// sum += factor times the terms of x's elements, modulo 2^64. With an odd factor: where one element has
/// other bits the sum is another one; where several have, it is the same by chance once in 2^64.
/// x: contiguous, of any dtype   sum: (1) i64
void checksum(Context& context, Tensor x, Tensor sum, uint64_t factor = 1);

}  // namespace ptrain
