// Filling, adding, scaling and sums on a GPU: bound by memory, so 16 bytes an access where the addresses
// allow it. Copies are in copy.cu. Bytes moved an element: fill 1 element written; add 2 read, 1 written;
// scale and add_bias 1 read, 1 written; the sums 1 read.
#include "kernels/ops/elementwise.h"

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

template <class T, int width>
__global__ void fill_kernel(Matrix<T> x, Runs runs, double value) {
  Vector<T, width> values;
  for (int i = 0; i < width; ++i) values.at[i] = narrow<T>(value);
  for_each_run<width>(
      runs, [](int64_t, int64_t) { return 0; },
      [&](int64_t row, int64_t column, int) { store_run<width>(x, row, column, values); });
}

template <class T, int width>
__global__ void add_kernel(Matrix<const T> x, Matrix<T> y, Runs runs) {
  for_each_run<width>(
      runs,
      [&](int64_t row, int64_t column) -> RunPair<T, width> {
        return {load_run<width>(x, row, column), load_run<width>(y, row, column)};
      },
      [&](int64_t row, int64_t column, RunPair<T, width> pair) {
        for (int i = 0; i < width; ++i) pair.b.at[i] = narrow<T>(widen(pair.b.at[i]) + widen(pair.a.at[i]));
        store_run<width>(y, row, column, pair.b);
      });
}

template <class T, int width>
__global__ void scale_kernel(Matrix<T> x, Runs runs, Wide<T> factor) {
  for_each_run<width>(
      runs, [&](int64_t row, int64_t column) { return load_run<width>(x, row, column); },
      [&](int64_t row, int64_t column, Vector<T, width> run) {
        for (int i = 0; i < width; ++i) run.at[i] = narrow<T>(widen(run.at[i]) * factor);
        store_run<width>(x, row, column, run);
      });
}

template <class T, int width>
__global__ void add_bias_kernel(Matrix<T> y, const T* bias, Runs runs) {
  const Matrix<const T> one{bias, 0};  // every row of it is the bias
  for_each_run<width>(
      runs,
      [&](int64_t row, int64_t column) -> RunPair<T, width> {
        return {load_run<width>(one, row, column), load_run<width>(y, row, column)};
      },
      [&](int64_t row, int64_t column, RunPair<T, width> pair) {
        for (int i = 0; i < width; ++i) pair.b.at[i] = narrow<T>(widen(pair.b.at[i]) + widen(pair.a.at[i]));
        store_run<width>(y, row, column, pair.b);
      });
}

constexpr int64_t most_sum_blocks = 132 * 8;
constexpr int64_t elements_of_block = 8 * run_threads;

/// partials[block] = sum of squares of the block's elements. A run is summed in f32, runs in f64: a run whose
/// squares leave f32 gives infinity, as a gradient that has gone wrong should.
template <class T, int width>
__global__ void squares_kernel(const T* x, int64_t runs, double* partials) {
  __shared__ double shared[warp_size];
  const Matrix<const T> from{x, 0};
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  double sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < runs; i += step) {
    const auto run = load_run<width>(from, 0, i * width);
    Wide<T> squares = 0;
    for (int j = 0; j < width; ++j) squares += widen(run.at[j]) * widen(run.at[j]);
    sum += squares;
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// sum += the partials, one block.
__global__ void add_sums_kernel(const double* partials, int64_t count, double* sum) {
  __shared__ double shared[warp_size];
  double mine = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) mine += partials[i];
  mine = block_sum(mine, shared);
  if (threadIdx.x == 0) *sum += mine;
}

constexpr int column_warps = 8;

/// partials[group, o] = sum of dy[n, o] over the group's rows. A warp reads one row of a tile of 32 runs; the
/// block's warps take every eighth row, and their sums are added in the warps' order.
template <class T, int width>
__global__ void column_sums_kernel(Matrix<const T> dy, int64_t N, int64_t O, float* partials) {
  __shared__ float shared[column_warps][warp_size * width];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * warp_size * width;
  const int64_t column = tile + lane * width;
  const int64_t begin = N * blockIdx.y / gridDim.y, end = N * (blockIdx.y + 1) / gridDim.y;
  float sums[width] = {};
  if (column < O) {
    for (int64_t n = begin + warp; n < end; n += column_warps) {
      const auto run = load_run<width>(dy, n, column);
      for (int i = 0; i < width; ++i) sums[i] += to_float(run.at[i]);
    }
  }
  for (int i = 0; i < width; ++i) shared[warp][lane * width + i] = sums[i];
  __syncthreads();
  for (int i = threadIdx.x; i < warp_size * width; i += blockDim.x) {
    if (tile + i >= O) return;
    float total = 0;
    for (int w = 0; w < column_warps; ++w) total += shared[w][i];
    partials[static_cast<int64_t>(blockIdx.y) * O + tile + i] = total;
  }
}

}  // namespace

void fill(Context& context, Tensor x, double value) {
  x = flattened(x);
  with_storage(x.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(x), [&]<int width>() {
      const Runs runs = runs_of(x.rows(), x.columns(), width);
      launch(context, fill_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<T>(x), runs, value);
    });
  });
}

void add(Context& context, Tensor x, Tensor y) {
  if (x.is_contiguous() && y.is_contiguous()) x = flattened(x), y = flattened(y);
  with_storage(y.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(x) && is_vectorizable(y), [&]<int width>() {
      const Runs runs = runs_of(y.rows(), y.columns(), width);
      launch(context, add_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<const T>(x), matrix<T>(y),
             runs);
    });
  });
}

void scale(Context& context, Tensor x, double factor) {
  x = flattened(x);
  with_storage(x.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(x), [&]<int width>() {
      const Runs runs = runs_of(x.rows(), x.columns(), width);
      launch(context, scale_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<T>(x), runs, factor);
    });
  });
}

void add_bias(Context& context, Tensor y, Tensor bias) {
  with_element(y.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(y) && is_vectorizable(bias), [&]<int width>() {
      const Runs runs = runs_of(y.rows(), y.columns(), width);
      launch(context, add_bias_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<T>(y),
             elements<const T>(bias), runs);
    });
  });
}

void linear_backward_bias(Context& context, Tensor dy, Tensor db, Write write) {
  const int64_t N = dy.rows(), O = dy.columns(), groups = sum_groups(N);
  float* partials = granted<float>(context, groups * O, "linear_backward_bias");
  with_element(dy.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(dy), [&]<int width>() {
      const dim3 grid(static_cast<unsigned>(divide_up(O, warp_size * width)), static_cast<unsigned>(groups));
      launch(context, column_sums_kernel<T, width>, grid, column_warps * warp_size, 0, matrix<const T>(dy), N,
             O, partials);
    });
  });
  add_partials(context, partials, groups, db, write);
}

void sum_of_squares(Context& context, Tensor x, Tensor sum) {
  x = flattened(x);
  const int64_t blocks = std::clamp<int64_t>(divide_up(x.numel(), elements_of_block), 1, most_sum_blocks);
  double* partials = granted<double>(context, blocks, "sum_of_squares");
  with_storage(x.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(x), [&]<int width>() {
      launch(context, squares_kernel<T, width>, dim3(static_cast<unsigned>(blocks)), run_threads, 0,
             elements<const T>(x), x.numel() / width, partials);
    });
  });
  launch(context, add_sums_kernel, dim3(1), run_threads, 0, partials, blocks, elements<double>(sum));
}

}  // namespace ptrain::cuda
