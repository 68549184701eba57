// Checksums on a CPU: each thread adds up its part, and integers add up to the same in any order.
#include "kernels/ops/checksum.h"

#include <atomic>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

/// Bits: an unsigned integer of an element's size. A function of its own: inlined into a parallel region the
/// compiler does not vectorise it, and it takes seven times as long.
template <class Bits>
[[gnu::noinline]] uint64_t terms_of(const Bits* bits, int64_t begin, int64_t end) {
  uint64_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = begin; i < end; ++i) sum += checksum_term(bits[i], static_cast<uint64_t>(i));
  return sum;
}

template <class Bits>
void add_terms(Context& context, Tensor x, Tensor sum, uint64_t factor) {
  int64_t* const total = sum.as<int64_t>();
  parallel_ranges(context.threads, x.numel(), min_elements_per_thread, 1024, [&](int64_t begin, int64_t end) {
    const auto mine = static_cast<int64_t>(factor * terms_of(static_cast<const Bits*>(x.data), begin, end));
    std::atomic_ref(*total).fetch_add(mine, std::memory_order_relaxed);
  });
}

}  // namespace

void checksum(Context& context, Tensor x, Tensor sum, uint64_t factor) {
  with_bits(x.dtype, [&]<class Bits>() { add_terms<Bits>(context, x, sum, factor); });
}

}  // namespace ptrain::cpu
