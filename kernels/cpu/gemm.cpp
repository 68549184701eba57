// Linear layers on a CPU: tiles of the output shared out over the threads, each computed by one call of the
// BLAS on one thread.
#include <algorithm>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"
#include "kernels/cpu/widened_gemm.h"

namespace ptrain::cpu {
namespace {

template <class T>
void add_bias_to(const T* bias, int64_t rows, int64_t columns, Matrix<T> c) {
  for (int64_t i = 0; i < rows; ++i) {
    T* row = c.data + i * c.stride;
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) row[j] += bias[j];
  }
}

/// c = a b + bias, or c += …, with a: (m, k) and b: (k, n) after their transpositions; bias: (n) or null.
/// S: elements of the operands   G: of the output
template <class S, class G>
void multiply(const Context& context, std::string_view op, int64_t m, int64_t n, int64_t k, Matrix<const S> a,
              Matrix<const S> b, const G* bias, Write write, Matrix<G> c) {
  if constexpr (is_narrow<S>) {
    multiply_widened<S, S, G>(context, op, m, n, k, a, b, {.c = c, .bias = bias, .write = write});
  } else {
    if (m == 0 || n == 0) return;
    const S beta = write == Write::accumulate ? S{1} : S{0};
    const TileGrid grid = tile_grid(context, m, n, k);
    parallel_tasks(context.threads, grid.rows * grid.columns, [&](int64_t task) {
      const Tile t = tile_of(grid, m, n, task);
      blas_gemm(a.transpose, b.transpose, t.rows, t.columns, k, a.at(t.row, 0), a.stride, b.at(0, t.column),
                b.stride, beta, c.at(t.row, t.column), c.stride);
      if (bias) add_bias_to<S>(bias + t.column, t.rows, t.columns, {c.at(t.row, t.column), c.stride});
    });
  }
}

/// linear_forward for at most max_few_rows rows.
template <class S>
void multiply_few_rows(int threads, Tensor x, Tensor w, const S* bias, Write write, Tensor y) {
  using T = Wide<S>;
  const S* in = x.as<S>();
  const S* weights = w.as<S>();
  S* out = y.as<S>();
  const int64_t C = x.columns(), stride = y.row_stride;
  const int64_t grain = std::max<int64_t>(4 * min_elements_per_thread / std::max<int64_t>(C, 1), 1);
  parallel_ranges(threads, y.columns(), grain, 4, [&](int64_t begin, int64_t end) {
    few_rows_product<S>(y.rows(), in, x.row_stride, weights, w.row_stride, C, begin, end,
                        [&](int64_t r, int64_t o, T sum) {
                          S& to = out[r * stride + o];
                          const T old = write == Write::accumulate ? widen(to) : T{0};
                          to = convert<S>(old + (bias ? sum + widen(bias[o]) : sum));
                        });
  });
}

}  // namespace

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write) {
  with_storage(y.dtype, [&]<class S>() {
    const S* addend = bias ? bias.as<S>() : nullptr;
    if (y.rows() <= max_few_rows) return multiply_few_rows<S>(context.threads, x, w, addend, write, y);
    multiply<S, S>(context, "linear_forward", y.rows(), y.columns(), x.columns(), matrix_of<const S>(x),
                   matrix_of<const S>(w, Transpose::yes), addend, write, matrix_of<S>(y));
  });
}

void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write) {
  with_storage(dx.dtype, [&]<class S>() {
    multiply<S, S>(context, "linear_backward_input", dx.rows(), dx.columns(), dy.columns(),
                   matrix_of<const S>(dy), matrix_of<const S>(w), nullptr, write, matrix_of<S>(dx));
  });
}

void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write) {
  if (x.rows() == 0) {
    if (write == Write::overwrite) cpu::fill(context, dw, 0);
    return;
  }
  with_gradient(x.dtype, dw.dtype, [&]<class S, class G>() {
    multiply<S, G>(context, "linear_backward_weight", dw.rows(), dw.columns(), x.rows(),
                   matrix_of<const S>(dy, Transpose::yes), matrix_of<const S>(x), nullptr, write,
                   matrix_of<G>(dw));
  });
}

void linear_backward_bias(Context& context, Tensor dy, Tensor db, Write write) {
  constexpr int64_t width = 64;  // columns whose sums stay in registers
  with_gradient(dy.dtype, db.dtype, [&]<class S, class G>() {
    const S* in = dy.as<S>();
    G* out = db.as<G>();
    const int64_t N = dy.rows(), O = dy.columns(), blocks = (O + width - 1) / width;
    const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N * width, 1), 1);
    parallel_ranges(context.threads, blocks, grain, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * width, count = std::min(width, O - first);
        double sums[width] = {};
        for (int64_t n = 0; n < N; ++n) {
          const S* row = in + n * dy.row_stride + first;
#pragma omp simd
          for (int64_t o = 0; o < count; ++o) sums[o] += static_cast<double>(widen(row[o]));
        }
        for (int64_t o = 0; o < count; ++o) {
          const double old = write == Write::accumulate ? static_cast<double>(widen(out[first + o])) : 0.0;
          out[first + o] = convert<G>(old + sums[o]);
        }
      }
    });
  });
}

}  // namespace ptrain::cpu
