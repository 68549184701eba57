// Sums of squares in integers on a GPU: bins of 32-bit counters in shared memory, a set for each warp, then
// one 64-bit addition a block and bin. Integers add up to the same in any order, so atomics do not show. 4
// bytes (2 of 16-bit floats) read an element, and three additions to shared memory.
#include "kernels/ops/exact_sum.h"

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

constexpr int warps = run_threads / warp_size;
static_assert(run_threads == exact_bins, "a thread for each bin");
constexpr int special = exact_bins - 1;  // exponent bits of infinity and NaN

/// A square of 48 bits in pieces of 16: a counter takes 2^16 of them.
constexpr int pieces = 3;
constexpr int64_t most_of_warp = 1 << 16;
/// Elements of a block: enough for the bins' own cost, few enough for the counters.
constexpr int64_t fewest_of_block = 8192, most_of_block = warps * most_of_warp, wanted_blocks = 132 * 8;

__device__ inline void count_square(float x, unsigned (&counters)[pieces][exact_bins]) {
  const unsigned bits = std::bit_cast<unsigned>(x), e = bits >> 23 & 0xffu;
  const unsigned m = (bits & 0x7fffffu) | (e != 0 ? 0x800000u : 0u);
  if (m == 0) return;
  if (e == special) {
    atomic_add(&counters[m == 0x800000u ? 0 : 1][special], 1u);
    return;
  }
  const uint64_t square = static_cast<uint64_t>(m) * m;
  for (int piece = 0; piece < pieces; ++piece)
    atomic_add(&counters[piece][e], static_cast<unsigned>(square >> (16 * piece)) & 0xffffu);
}

/// A block takes `of_block` runs of `width` elements one after another, at most most_of_warp elements a warp.
template <class T, int width>
__global__ void squares_to_bins_kernel(const T* x, int64_t runs, int64_t of_block, int64_t* bins) {
  __shared__ unsigned counters[warps][pieces][exact_bins];
  const int t = static_cast<int>(threadIdx.x);
  for (int w = 0; w < warps; ++w) {
    for (int piece = 0; piece < pieces; ++piece) counters[w][piece][t] = 0;
  }
  __syncthreads();
  const Matrix<const T> from{x, 0};
  const int64_t begin = blockIdx.x * of_block;
  const int64_t end = begin + of_block < runs ? begin + of_block : runs;
  for (int64_t i = begin + t; i < end; i += run_threads) {
    const auto run = load_run<width>(from, 0, i * width);
    for (int j = 0; j < width; ++j) count_square(to_float(run.at[j]), counters[t / warp_size]);
  }
  __syncthreads();
  // Thread t has bin t. All pieces together would leave 64 bits: each goes to the two halves by itself.
  uint64_t sums[pieces] = {};
  for (int w = 0; w < warps; ++w) {
    for (int piece = 0; piece < pieces; ++piece) sums[piece] += counters[w][piece][t];
  }
  const uint64_t low = (sums[0] & 0xffffffu) + ((sums[1] & 0xffu) << 16);
  const uint64_t high = (sums[0] >> 24) + (sums[1] >> 8) + (sums[2] << 8);
  const uint64_t first = t == special ? sums[0] : low, second = t == special ? sums[1] : high;
  if (first != 0) atomic_add(bins + 2 * t, static_cast<int64_t>(first));
  if (second != 0) atomic_add(bins + 2 * t + 1, static_cast<int64_t>(second));
}

/// One block, a thread for each bin; one of them adds up, for the order's sake.
__global__ void total_kernel(const int64_t* bins, double* total) {
  __shared__ double values[exact_bins];
  const int t = static_cast<int>(threadIdx.x);
  values[t] = t == special ? 0 : exact_bin_value(t, bins[2 * t], bins[2 * t + 1]);
  __syncthreads();
  if (t != 0) return;
  double sum = 0;
  for (int e = 0; e < special; ++e) sum += values[e];
  if (bins[2 * special] != 0) sum = INFINITY;
  if (bins[2 * special + 1] != 0) sum = NAN;
  *total = sum;
}

}  // namespace

void exact_sum_of_squares(Context& context, Tensor x, Tensor bins, Write write) {
  x = flattened(x);
  if (write == Write::overwrite) runtime::set_async(bins.data, 0, bins.bytes(), context.stream->native());
  const int64_t elements_of_block =
      std::clamp(divide_up(x.numel(), wanted_blocks), fewest_of_block, most_of_block);
  with_element(x.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(x), [&]<int width>() {
      // Rounded down to whole turns of the block: every warp has the same share.
      const int64_t runs = x.numel() / width;
      const int64_t of_block = elements_of_block / width / run_threads * run_threads;
      launch(context, squares_to_bins_kernel<T, width>,
             dim3(static_cast<unsigned>(divide_up(runs, of_block))), run_threads, 0, elements<const T>(x),
             runs, of_block, elements<int64_t>(bins));
    });
  });
}

void exact_total(Context& context, Tensor bins, Tensor total) {
  launch(context, total_kernel, dim3(1), run_threads, 0, elements<const int64_t>(bins),
         elements<double>(total));
}

}  // namespace ptrain::cuda
