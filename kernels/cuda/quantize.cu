// 8-bit floats on a GPU: the largest magnitude, its scale, and the conversion that writes a tensor and its
// transpose in one pass: tiles of 128 rows and 64 columns go through shared memory, so that both are written
// in runs of 64 bytes and more.
#include "kernels/ops/quantize.h"

#include <cmath>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

template <class T, int width>
__global__ void __launch_bounds__(run_threads) amax_kernel(Matrix<const T> x, Runs runs, float* amax) {
  __shared__ float shared[warp_size];
  float largest = 0;
  for_each_run<width>(
      runs, [&](int64_t row, int64_t column) { return load_run<width>(x, row, column); },
      [&](int64_t, int64_t, const Vector<T, width>& values) {
        for (int i = 0; i < width; ++i) {
          const float magnitude = fabsf(to_float(values.at[i]));
          // Not a number counts as infinity: a comparison with it would pass it over.
          largest = magnitude <= FLT_MAX ? (magnitude > largest ? magnitude : largest) : INFINITY;
        }
      });
  largest = block_reduce(largest, Max{}, shared);
  if (threadIdx.x == 0 && largest > 0) atomic_max(amax, largest);
}

__global__ void scale_kernel(const float* amax, double largest, double unit, float* scale) {
  const double wanted = largest / static_cast<double>(*amax) * unit;
  const bool is_usable = *amax > 0 && *amax <= FLT_MAX;
  // An amax below the normal numbers would make an infinite scale, and 0 * infinity is no number.
  *scale = is_usable ? static_cast<float>(wanted < FLT_MAX ? wanted : FLT_MAX) : 1.0f;
}

__global__ void invert_kernel(const float* a_scale, const float* b_scale, float* inverses) {
  inverses[0] = 1 / *a_scale;
  inverses[1] = 1 / *b_scale;
}

constexpr int tile_rows = 128, tile_columns = 64;
constexpr int rows_a_thread = 4, columns_a_thread = 8;
constexpr int quantize_threads = tile_rows / rows_a_thread * (tile_columns / columns_a_thread);
static_assert(quantize_threads == 256);

struct E4M3 {
  __device__ static uint8_t of(float x) { return to_e4m3(x); }
};
struct E5M2 {
  __device__ static uint8_t of(float x) { return to_e5m2(x); }
};

/// The tensors of one call; y and its transpose may be null.
template <class T>
struct Quantized {
  Matrix<const T> x;
  const float* scale;
  Matrix<uint8_t> y, transposed;
  int64_t rows, columns;
};

/// 8 columns of one row as 8-bit elements; zeros outside of the tensor.
template <class T, class Format, bool is_aligned>
__device__ Vector<uint8_t, columns_a_thread> quantized_run(const Quantized<T>& q, float scale, int64_t row,
                                                           int64_t column) {
  Vector<uint8_t, columns_a_thread> to{};
  if (row >= q.rows) return to;
  if constexpr (is_aligned) {
    constexpr int width = vector_width<T>;
    if (column >= q.columns) return to;
    for (int part = 0; part < columns_a_thread / width; ++part) {
      const auto from = load_run<width>(q.x, row, column + part * width);
      for (int i = 0; i < width; ++i) to.at[part * width + i] = Format::of(to_float(from.at[i]) * scale);
    }
  } else {
    for (int i = 0; i < columns_a_thread; ++i)
      if (column + i < q.columns) to.at[i] = Format::of(to_float(*q.x.at(row, column + i)) * scale);
  }
  return to;
}

/// Writes a tile of the transpose, which lies in shared memory as 4 rows a word.
template <class T, bool is_aligned>
__device__ void write_transposed(const Quantized<T>& q, const uint32_t (*tile)[tile_rows / 4 + 1],
                                 int64_t first_row, int64_t first_column) {
  constexpr int bytes = 16, threads_a_column = 4, runs = tile_rows / bytes / threads_a_column;
  if constexpr (is_aligned) {
    const int column = threadIdx.x / threads_a_column, part = threadIdx.x % threads_a_column;
    for (int i = 0; i < runs; ++i) {
      const int row = (i * threads_a_column + part) * bytes;
      if (first_column + column >= q.columns || first_row + row >= q.rows) continue;
      Vector<uint32_t, 4> words;
      for (int w = 0; w < 4; ++w) words.at[w] = tile[column][row / 4 + w];
      *reinterpret_cast<Vector<uint32_t, 4>*>(q.transposed.at(first_column + column, first_row + row)) =
          words;
    }
  } else {
    for (int i = threadIdx.x; i < tile_rows * tile_columns; i += quantize_threads) {
      const int column = i / tile_rows, row = i % tile_rows;
      if (first_column + column >= q.columns || first_row + row >= q.rows) continue;
      *q.transposed.at(first_column + column, first_row + row) =
          static_cast<uint8_t>(tile[column][row / 4] >> (row % 4 * 8));
    }
  }
}

template <class T, class Format, bool is_aligned>
__global__ void __launch_bounds__(quantize_threads) quantize_kernel(Quantized<T> q) {
  __shared__ uint32_t tile[tile_columns][tile_rows / 4 + 1];  // one word more: another bank a column
  constexpr int runs = tile_columns / columns_a_thread;
  const int column = threadIdx.x % runs * columns_a_thread, row = threadIdx.x / runs * rows_a_thread;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * tile_rows;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * tile_columns;
  const float scale = *q.scale;
  Vector<uint8_t, columns_a_thread> values[rows_a_thread];
  for (int i = 0; i < rows_a_thread; ++i) {
    values[i] = quantized_run<T, Format, is_aligned>(q, scale, first_row + row + i, first_column + column);
  }
  if (q.y.data != nullptr) {
    for (int i = 0; i < rows_a_thread; ++i) {
      if (first_row + row + i >= q.rows) continue;
      uint8_t* to = q.y.at(first_row + row + i, first_column + column);
      if constexpr (is_aligned) {
        if (first_column + column < q.columns)
          *reinterpret_cast<Vector<uint8_t, columns_a_thread>*>(to) = values[i];
      } else {
        for (int j = 0; j < columns_a_thread; ++j)
          if (first_column + column + j < q.columns) to[j] = values[i].at[j];
      }
    }
  }
  if (q.transposed.data == nullptr) return;
  for (int j = 0; j < columns_a_thread; ++j) {
    uint32_t word = 0;
    for (int i = 0; i < rows_a_thread; ++i) word |= static_cast<uint32_t>(values[i].at[j]) << (8 * i);
    tile[column + j][row / 4] = word;
  }
  __syncthreads();
  write_transposed<T, is_aligned>(q, tile, first_row, first_column);
}

/// Whether every run of a thread lies wholly inside or outside, at addresses for vectors. Null agrees to all.
bool has_whole_runs(Tensor x, Tensor y, Tensor y_t) {
  const auto is_multiple = [](Tensor t, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(t.data) % bytes == 0 &&
           t.row_stride * size_bytes(t.dtype) % bytes == 0;
  };
  return is_multiple(x, 16) && is_multiple(y, columns_a_thread) && is_multiple(y_t, 16) &&
         x.columns() % columns_a_thread == 0 && (!y_t || x.rows() % 16 == 0);
}

}  // namespace

void update_amax(Context& context, Tensor x, Tensor amax) {
  const Tensor flat = flattened(x);
  with_element(x.dtype, [&]<class T>() {
    const auto run = [&]<int width>() {
      const Runs runs = runs_of(flat.rows(), flat.columns(), width);
      launch(context, amax_kernel<T, width>, blocks_of(runs), run_threads, 0, matrix<const T>(flat), runs,
             amax.as<float>());
    };
    if (is_vectorizable(flat)) return run.template operator()<vector_width<T>>();
    run.template operator()<1>();
  });
}

void scale_of_amax(Context& context, Tensor amax, DType dtype, int margin, Tensor scale) {
  launch(context, scale_kernel, dim3(1), 1, 0, amax.as<float>(), largest_of(dtype), std::ldexp(1.0, -margin),
         scale.as<float>());
}

void quantize(Context& context, Tensor x, Tensor scale, Tensor y, Tensor y_t) {
  const DType dtype = y ? y.dtype : y_t.dtype;
  check(!y || !y_t || y.dtype == y_t.dtype, "quantize: y is {}, its transpose {}", name_of(y.dtype),
        name_of(y_t.dtype));
  const dim3 grid(static_cast<unsigned>(divide_up(x.rows(), tile_rows)),
                  static_cast<unsigned>(divide_up(x.columns(), tile_columns)));
  with_element(x.dtype, [&]<class T>() {
    const Quantized<T> q{matrix<const T>(x),   scale.as<float>(), matrix<uint8_t>(y),
                         matrix<uint8_t>(y_t), x.rows(),          x.columns()};
    const auto run = [&]<class Format>() {
      const auto kernel =
          has_whole_runs(x, y, y_t) ? quantize_kernel<T, Format, true> : quantize_kernel<T, Format, false>;
      launch(context, kernel, grid, quantize_threads, 0, q);
    };
    if (dtype == DType::f8_e4m3) return run.template operator()<E4M3>();
    run.template operator()<E5M2>();
  });
}

void invert_scales(Context& context, Tensor a_scale, Tensor b_scale, Tensor inverses) {
  launch(context, invert_kernel, dim3(1), 1, 0, a_scale.as<float>(), b_scale.as<float>(),
         inverses.as<float>());
}

}  // namespace ptrain::cuda
