// Matrix products of 16- and 8-bit elements: blocks of both operands are widened to f32 in Context::scratch,
// multiplied there by the BLAS, summed in f32, and every sum is rounded once. Not for f32 and f64, which the
// BLAS reads where they lie.
#pragma once

#include <string_view>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops/context.h"

namespace ptrain::cpu {

/// What becomes of the sums: c = sums * factor + bias, or c += that. C: element type of the output and bias.
template <class C>
struct Finish {
  Matrix<C> c;
  const C* bias = nullptr;  // one for each column, or null
  Write write = Write::overwrite;
  float factor = 1;
};

/// The block (row, column) .. of op(from), widened; stored as `from` stores it, without gaps. Returns the
/// block as the BLAS takes it.
template <class S>
Matrix<const float> widen_block(Matrix<const S> from, const Tile& block, float* to) {
  const bool is_transposed = from.transpose == Transpose::yes;
  const int64_t rows = is_transposed ? block.columns : block.rows,
                columns = is_transposed ? block.rows : block.columns;
  const S* first = from.at(block.row, block.column);
  for (int64_t i = 0; i < rows; ++i) {
    const S* in = first + i * from.stride;
    float* out = to + i * columns;
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) out[j] = widen(in[j]);
  }
  return {to, columns, from.transpose};
}

/// Writes the sums of a tile of the output; the tile's sums lie without gaps.
template <class C>
void finish_tile(const Finish<C>& finish, const Tile& tile, const float* sums) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    const float* in = sums + i * tile.columns;
    C* out = finish.c.at(tile.row + i, tile.column);
    const C* bias = finish.bias ? finish.bias + tile.column : nullptr;
    const bool adds = finish.write == Write::accumulate;
    if (!bias && !adds) {
#pragma omp simd
      for (int64_t j = 0; j < tile.columns; ++j) out[j] = convert<C>(in[j] * finish.factor);
      continue;
    }
    for (int64_t j = 0; j < tile.columns; ++j) {
      float value = in[j] * finish.factor;
      if (bias) value += widen(bias[j]);
      if (adds) value += widen(out[j]);
      out[j] = convert<C>(value);
    }
  }
}

/// Length of the blocks that cut `extent` evenly into pieces of at most `side`.
inline int64_t even_block(int64_t extent, int64_t side) {
  const int64_t blocks = std::max<int64_t>((extent + side - 1) / side, 1);
  const int64_t length = (extent + blocks - 1) / blocks;
  return std::min((length + side_step - 1) / side_step * side_step, side);
}

/// How a product's tiles are shared out and cut into blocks.
struct WidenedWork {
  TileGrid grid;
  int64_t slots;  // tiles at work at a time, each with blocks of its own in scratch
  int64_t side;   // longest of a block; 0 where the scratch is too small
};

/// A block's sides decide where sums are cut. Where the context is thread-invariant they follow from the
/// shape, and the scratch decides only on how many tiles are at work; else all slots share the scratch.
inline WidenedWork widened_work(const Context& context, int64_t granted, int64_t m, int64_t n, int64_t k) {
  const TileGrid grid = tile_grid(context, m, n, k);
  const int64_t tiles = grid.rows * grid.columns;
  if (!context.is_thread_invariant) return {grid, tiles, side_within(granted, tiles)};
  const int64_t side = side_for(std::max({m, n, k}));
  const int64_t slots = std::min({tiles, int64_t{context.threads}, granted / widened_block_bytes(side)});
  return {grid, slots, slots > 0 ? side : 0};
}

/// finish(a b), with a: (m, k) and b: (k, n) after their transpositions. Errors (defect): too little scratch.
template <class A, class B, class C>
void multiply_widened(const Context& context, std::string_view op, int64_t m, int64_t n, int64_t k,
                      Matrix<const A> a, Matrix<const B> b, const Finish<C>& finish) {
  if (m == 0 || n == 0) return;
  const int64_t granted = context.scratch ? context.scratch.bytes() : 0;
  const auto [grid, slots, side] = widened_work(context, granted, m, n, k);
  const int64_t tiles = grid.rows * grid.columns;
  check(side > 0, "{}: {} bytes of scratch for blocks of {} tiles, at least {} are needed", op, granted,
        tiles,
        context.is_thread_invariant ? widened_block_bytes(side_for(std::max({m, n, k})))
                                    : tiles * widened_block_bytes(side_step));
  const int64_t side_m = even_block(m, side), side_n = even_block(n, side), side_k = even_block(k, side);
  parallel_tasks(context.threads, slots, [&](int64_t slot) {
    float* blocks = static_cast<float*>(context.scratch.data) + slot * 3 * side * side;
    float *block_a = blocks, *block_b = blocks + side * side, *sums = blocks + 2 * side * side;
    for (int64_t task = slot; task < tiles; task += slots) {
      const Tile whole = tile_of(grid, m, n, task);
      const int64_t end_row = whole.row + whole.rows, end_column = whole.column + whole.columns;
      for (int64_t column = whole.column; column < end_column; column += side_n) {
        for (int64_t row = whole.row; row < end_row; row += side_m) {
          const Tile tile{row, std::min(side_m, end_row - row), column,
                          std::min(side_n, end_column - column)};
          for (int64_t depth = 0; depth == 0 || depth < k; depth += side_k) {
            const int64_t count = std::min(side_k, k - depth);
            const auto x = widen_block(a, {row, tile.rows, depth, count}, block_a);
            const auto y = widen_block(b, {depth, count, column, tile.columns}, block_b);
            blas_gemm(x.transpose, y.transpose, tile.rows, tile.columns, count, x.data, x.stride, y.data,
                      y.stride, depth == 0 ? 0.0f : 1.0f, sums, tile.columns);
          }
          finish_tile(finish, tile, sums);
        }
      }
    }
  });
}

}  // namespace ptrain::cpu
