// Linear layers on a CPU: tiles of the output shared out over the threads, each computed by one call of the
// BLAS on one thread.
#include <algorithm>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

/// How the output of a product is cut into tiles.
struct TileGrid {
  int64_t rows, columns;
};

/// One tile a thread, since the BLAS is fastest on large tiles (2 threads, 1024 rows: 98 % of its best rate
/// with halves, 94 % with eighths), and as square as can be: a tile reads a strip of both operands. Tiles of
/// less work than a thread's start are not made.
TileGrid tile_grid(int threads, int64_t m, int64_t n, int64_t k) {
  constexpr int64_t smallest_work = 1 << 19, smallest_side = 32;
  const int64_t tiles = std::clamp<int64_t>(m * n * k / smallest_work, 1, threads);
  TileGrid best{1, 1};
  double least_read = 0;
  for (int64_t rows = 1; rows <= tiles; ++rows) {
    const TileGrid grid{rows, tiles / rows};
    if (grid.rows * grid.columns < best.rows * best.columns) continue;
    const bool is_too_thin = (grid.rows > 1 && m / grid.rows < smallest_side) ||
                             (grid.columns > 1 && n / grid.columns < smallest_side);
    if (is_too_thin) continue;
    const double read = static_cast<double>(m) / static_cast<double>(grid.rows) +
                        static_cast<double>(n) / static_cast<double>(grid.columns);
    if (grid.rows * grid.columns > best.rows * best.columns || read < least_read)
      best = grid, least_read = read;
  }
  return best;
}

/// Where part `part` of `parts` begins: at a multiple of the BLAS's own blocks.
int64_t cut(int64_t extent, int64_t part, int64_t parts) {
  constexpr int64_t block = 16;
  return std::min((extent + block - 1) / block * part / parts * block, extent);
}

template <class T>
struct Matrix {
  T* data;
  int64_t stride;
  Transpose transpose = Transpose::no;

  /// Element (row, column) of the matrix after its transposition.
  T* at(int64_t row, int64_t column) const {
    return transpose == Transpose::yes ? data + column * stride + row : data + row * stride + column;
  }
};

template <class T>
Matrix<T> matrix_of(Tensor x, Transpose transpose = Transpose::no) {
  return {x.as<T>(), x.row_stride, transpose};
}

template <class T>
void add_bias_to(const T* bias, int64_t rows, int64_t columns, Matrix<T> c) {
  for (int64_t i = 0; i < rows; ++i) {
    T* row = c.data + i * c.stride;
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) row[j] += bias[j];
  }
}

/// c = a b + bias, or c += …, with a: (m, k) and b: (k, n) after their transpositions; bias: (n) or null.
template <class T>
void multiply(int threads, int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, const T* bias,
              Write write, Matrix<T> c) {
  if (m == 0 || n == 0) return;
  const T beta = write == Write::accumulate ? T{1} : T{0};
  const TileGrid grid = tile_grid(threads, m, n, k);
  parallel_tasks(threads, grid.rows * grid.columns, [&](int64_t task) {
    const int64_t i = task / grid.columns, j = task % grid.columns;
    const int64_t row = cut(m, i, grid.rows), rows = cut(m, i + 1, grid.rows) - row;
    const int64_t column = cut(n, j, grid.columns), columns = cut(n, j + 1, grid.columns) - column;
    blas_gemm(a.transpose, b.transpose, rows, columns, k, a.at(row, 0), a.stride, b.at(0, column), b.stride,
              beta, c.at(row, column), c.stride);
    if (bias) add_bias_to<T>(bias + column, rows, columns, {c.at(row, column), c.stride});
  });
}

/// linear_forward for at most max_few_rows rows.
template <class T>
void multiply_few_rows(int threads, Tensor x, Tensor w, const T* bias, Write write, Tensor y) {
  const T* in = x.as<T>();
  const T* weights = w.as<T>();
  T* out = y.as<T>();
  const int64_t C = x.columns(), stride = y.row_stride;
  const int64_t grain = std::max<int64_t>(4 * min_elements_per_thread / std::max<int64_t>(C, 1), 1);
  parallel_ranges(threads, y.columns(), grain, 4, [&](int64_t begin, int64_t end) {
    few_rows_product<T>(y.rows(), in, x.row_stride, weights, w.row_stride, C, begin, end,
                        [&](int64_t r, int64_t o, T sum) {
                          T& to = out[r * stride + o];
                          const T old = write == Write::accumulate ? to : T{0};
                          to = old + (bias ? sum + bias[o] : sum);
                        });
  });
}

}  // namespace

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write) {
  with_float(y.dtype, [&]<class T>() {
    const T* addend = bias ? bias.as<T>() : nullptr;
    if (y.rows() <= max_few_rows) return multiply_few_rows<T>(context.threads, x, w, addend, write, y);
    multiply<T>(context.threads, y.rows(), y.columns(), x.columns(), matrix_of<T>(x),
                matrix_of<T>(w, Transpose::yes), addend, write, matrix_of<T>(y));
  });
}

void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write) {
  with_float(dx.dtype, [&]<class T>() {
    multiply<T>(context.threads, dx.rows(), dx.columns(), dy.columns(), matrix_of<T>(dy), matrix_of<T>(w),
                nullptr, write, matrix_of<T>(dx));
  });
}

void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write) {
  if (x.rows() == 0) {
    if (write == Write::overwrite) cpu::fill(context, dw, 0);
    return;
  }
  with_float(dw.dtype, [&]<class T>() {
    multiply<T>(context.threads, dw.rows(), dw.columns(), x.rows(), matrix_of<T>(dy, Transpose::yes),
                matrix_of<T>(x), nullptr, write, matrix_of<T>(dw));
  });
}

void linear_backward_bias(Context& context, Tensor dy, Tensor db, Write write) {
  constexpr int64_t width = 64;  // columns whose sums stay in registers
  with_float(db.dtype, [&]<class T>() {
    const T* in = dy.as<T>();
    T* out = db.as<T>();
    const int64_t N = dy.rows(), O = dy.columns(), blocks = (O + width - 1) / width;
    const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N * width, 1), 1);
    parallel_ranges(context.threads, blocks, grain, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * width, count = std::min(width, O - first);
        double sums[width] = {};
        for (int64_t n = 0; n < N; ++n) {
          const T* row = in + n * dy.row_stride + first;
#pragma omp simd
          for (int64_t o = 0; o < count; ++o) sums[o] += static_cast<double>(row[o]);
        }
        for (int64_t o = 0; o < count; ++o) {
          const double old = write == Write::accumulate ? static_cast<double>(out[first + o]) : 0.0;
          out[first + o] = static_cast<T>(old + sums[o]);
        }
      }
    });
  });
}

}  // namespace ptrain::cpu
