// The matrix product that other benchmarks compare with. Not the benchmark itself, which is in bench.h.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain::bench {

inline constexpr int64_t square_size = 2048;

/// FLOP/s of the product of two square matrices of n rows, f32, by this rank's threads.
double square_flops(Context& context, int64_t n = square_size);

}  // namespace ptrain::bench
