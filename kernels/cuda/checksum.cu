// Checksums on a GPU: 1 to 8 bytes read an element, one 64-bit addition a block. Integers add up to the same
// in any order, so atomics do not show.
#include "kernels/ops/checksum.h"

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// Bits: an unsigned integer of an element's size. A grid that is smaller than the work goes over it in
/// turns.
template <class Bits, int width>
__global__ void checksum_kernel(const Bits* x, int64_t runs, int64_t* sum, uint64_t factor) {
  __shared__ int64_t of_block;
  if (threadIdx.x == 0) of_block = 0;
  __syncthreads();
  const Matrix<const Bits> from{x, 0};
  uint64_t mine = 0;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * run_threads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * run_threads + threadIdx.x; i < runs; i += threads) {
    const auto run = load_run<width>(from, 0, i * width);
    for (int j = 0; j < width; ++j) mine += checksum_term(run.at[j], static_cast<uint64_t>(i * width + j));
  }
  atomic_add(&of_block, static_cast<int64_t>(mine));
  __syncthreads();
  if (threadIdx.x == 0) atomic_add(sum, static_cast<int64_t>(factor * static_cast<uint64_t>(of_block)));
}

template <class Bits>
void add_terms(Context& context, Tensor x, Tensor sum, uint64_t factor) {
  with_width<Bits>(is_vectorizable(x), [&]<int width>() {
    const int64_t runs = x.numel() / width;
    const int64_t blocks = std::min(divide_up(runs, run_threads), most_run_blocks);
    launch(context, checksum_kernel<Bits, width>, dim3(static_cast<unsigned>(blocks)), run_threads, 0,
           elements<const Bits>(x), runs, elements<int64_t>(sum), factor);
  });
}

}  // namespace

void checksum(Context& context, Tensor x, Tensor sum, uint64_t factor) {
  x = flattened(x);
  with_bits(x.dtype, [&]<class Bits>() { add_terms<Bits>(context, x, sum, factor); });
}

}  // namespace ptrain::cuda
