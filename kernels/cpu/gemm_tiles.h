// How the output of a matrix product is cut into tiles, and the operands as matrices.
#pragma once

#include <algorithm>

#include "kernels/base/tensor.h"
#include "kernels/cpu/blas.h"
#include "kernels/ops/context.h"

namespace ptrain::cpu {

/// How the output of a product is cut into tiles.
struct TileGrid {
  int64_t rows, columns;
};

/// At most `most` tiles, none of less than `smallest_work` multiply-adds or, where that side is cut at all,
/// narrower than `smallest_side`; as many as that allows, and as square as can be: a tile reads a strip of
/// both operands.
inline TileGrid tile_grid(int64_t most, int64_t smallest_work, int64_t smallest_side, int64_t m, int64_t n,
                          int64_t k) {
  const int64_t tiles = std::clamp<int64_t>(m * n * k / smallest_work, 1, most);
  const int64_t most_rows = std::clamp<int64_t>(m / smallest_side, 1, tiles);
  const int64_t most_columns = std::clamp<int64_t>(n / smallest_side, 1, tiles);
  TileGrid best{1, 1};
  double least_read = 0;
  for (int64_t rows = 1; rows <= most_rows; ++rows) {
    const TileGrid grid{rows, std::min(tiles / rows, most_columns)};
    if (grid.rows * grid.columns < best.rows * best.columns) continue;
    const double read = static_cast<double>(m) / static_cast<double>(grid.rows) +
                        static_cast<double>(n) / static_cast<double>(grid.columns);
    if (grid.rows * grid.columns > best.rows * best.columns || read < least_read)
      best = grid, least_read = read;
  }
  return best;
}

/// One tile a thread, since the BLAS is fastest on large tiles (2 threads, 1024 rows: 98 % of its best rate
/// with halves, 94 % with eighths); none of less work than a thread's start. Where the context is
/// thread-invariant, as many as the largest products need for dozens of threads, but none narrower than 256:
/// that costs 7 % of the rate of a single tile, 128 would cost 12 %, and up to half where k is long.
inline TileGrid tile_grid(const Context& context, int64_t m, int64_t n, int64_t k) {
  return context.is_thread_invariant ? tile_grid(64, int64_t{1} << 22, 256, m, n, k)
                                     : tile_grid(context.threads, int64_t{1} << 19, 32, m, n, k);
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
