// What a rank's device can do at most, measured: what other benchmarks and MFU are a share of.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain::bench {

/// FLOP/s of f32 multiply-adds on a CPU's registers alone, all threads together.
double fma_flops(int threads);

/// Bytes a second of reading a host's memory that no cache holds, all threads together.
double read_bytes_per_s(int threads);

/// Bytes a second of a GPU's own copy inside its memory, read and written.
double copy_bytes_per_s(const Context& context);

/// Rows of the square product: large enough for the device to be busy.
int64_t square_size(DeviceKind kind);

/// FLOP/s of a product of square matrices of `dtype`, and of two 8-bit ones for f8_e4m3; on a CPU its best
/// call, on a GPU the median of a second, so that clocks have settled.
double square_flops(const Context& context, DType dtype);

}  // namespace ptrain::bench
