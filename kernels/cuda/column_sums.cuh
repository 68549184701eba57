// The second half of a sum over rows: the first kernel leaves one row of f32 sums a group of rows, this one
// adds them in ascending order to the result. Not for the first half: each op has its own.
#pragma once

#include "kernels/cuda/rows.cuh"

namespace ptrain::cuda {

/// Groups of rows whose sums an op keeps in scratch: few for short inputs, at most what scratch.h grants.
constexpr int64_t sum_groups(int64_t rows) {
  return std::clamp<int64_t>(divide_up(rows, 8), 1, 512);
}

constexpr int partial_columns = 32, partial_parts = 16;

/// to[c] (+)= sum over p of partials[p, c]. Each thread adds a sixteenth of the rows, then sixteen sums are
/// added: the order depends on `count` alone.   4 bytes read an element of partials.
template <class T>
__global__ void add_partials_kernel(const float* partials, int64_t count, int64_t columns, T* to,
                                    Write write) {
  __shared__ float sums[partial_parts][partial_columns];
  const int lane = threadIdx.x % partial_columns, part = threadIdx.x / partial_columns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * partial_columns + lane;
  float sum = 0;
  if (column < columns) {
    for (int64_t p = count * part / partial_parts; p < count * (part + 1) / partial_parts; ++p)
      sum += partials[p * columns + column];
  }
  sums[part][lane] = sum;
  __syncthreads();
  if (part != 0 || column >= columns) return;
  float total = 0;
  for (int p = 0; p < partial_parts; ++p) total += sums[p][lane];
  to[column] = from_float<T>(write == Write::accumulate ? to_float(to[column]) + total : total);
}

/// partials: (count, columns) f32   to: (columns) of any dtype that the device computes with
inline void add_partials(Context& context, const float* partials, int64_t count, Tensor to, Write write) {
  with_element(to.dtype, [&]<class T>() {
    const int64_t columns = to.numel();
    launch(context, add_partials_kernel<T>, dim3(static_cast<unsigned>(divide_up(columns, partial_columns))),
           partial_columns * partial_parts, 0, partials, count, columns, elements<T>(to), write);
  });
}

}  // namespace ptrain::cuda
