// How the output of a matrix product is cut into tiles, one a thread, and the operands as matrices.
#pragma once

#include <algorithm>

#include "kernels/base/tensor.h"
#include "kernels/cpu/blas.h"

namespace ptrain::cpu {

/// How the output of a product is cut into tiles.
struct TileGrid {
  int64_t rows, columns;
};

/// One tile a thread, since the BLAS is fastest on large tiles (2 threads, 1024 rows: 98 % of its best rate
/// with halves, 94 % with eighths), and as square as can be: a tile reads a strip of both operands. Tiles of
/// less work than a thread's start are not made.
inline TileGrid tile_grid(int threads, int64_t m, int64_t n, int64_t k) {
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
inline int64_t cut(int64_t extent, int64_t part, int64_t parts) {
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

/// A rectangle of a product's output.
struct Tile {
  int64_t row, rows, column, columns;
};

inline Tile tile_of(const TileGrid& grid, int64_t m, int64_t n, int64_t task) {
  const int64_t i = task / grid.columns, j = task % grid.columns;
  const int64_t row = cut(m, i, grid.rows), column = cut(n, j, grid.columns);
  return {row, cut(m, i + 1, grid.rows) - row, column, cut(n, j + 1, grid.columns) - column};
}

}  // namespace ptrain::cpu
