// Copies of tensors on a GPU, converting where the dtypes differ, and copies of chosen rows. Bytes moved an
// element: 1 element read, 1 written, 16 bytes an access of the wider of both where the addresses allow it.
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

template <class From, class To, int width>
__global__ void convert_kernel(Matrix<const From> x, Matrix<To> y, Runs runs) {
  for_each_run<width>(
      runs, [&](int64_t row, int64_t column) { return load_run<width>(x, row, column); },
      [&](int64_t row, int64_t column, const Vector<From, width>& run) {
        Vector<To, width> out;
        for (int i = 0; i < width; ++i) out.at[i] = narrow<To>(widen(run.at[i]));
        store_run<width>(y, row, column, out);
      });
}

/// Rows of x and y are those of the index, where there is one.
template <class Unit, int width>
__global__ void move_kernel(Matrix<const Unit> x, const int32_t* from, Matrix<Unit> y, const int32_t* to,
                            Runs runs) {
  for_each_run<width>(
      runs,
      [&](int64_t row, int64_t column) {
        return load_run<width>(x, from == nullptr ? row : from[row], column);
      },
      [&](int64_t row, int64_t column, const Vector<Unit, width>& run) {
        store_run<width>(y, to == nullptr ? row : to[row], column, run);
      });
}

/// y[to[r]] = x[from[r]] for `rows` values of r; a null index counts.
void move_rows(Context& context, Tensor x, const int32_t* from, Tensor y, const int32_t* to, int64_t rows) {
  with_bits(y.dtype, [&]<class Unit>() {
    const auto run = [&]<int width>() {
      const Runs runs = runs_of(rows, y.columns(), width);
      launch(context, move_kernel<Unit, width>, blocks_of(runs), run_threads, 0, matrix<const Unit>(x), from,
             matrix<Unit>(y), to, runs);
    };
    if (is_vectorizable(x) && is_vectorizable(y)) {
      run.template operator()<vector_width<Unit>>();
    } else {
      run.template operator()<1>();
    }
  });
}

template <class From, class To>
void convert(Context& context, Tensor x, Tensor y) {
  const auto run = [&]<int width>() {
    const Runs runs = runs_of(y.rows(), y.columns(), width);
    launch(context, convert_kernel<From, To, width>, blocks_of(runs), run_threads, 0, matrix<const From>(x),
           matrix<To>(y), runs);
  };
  constexpr int width = std::min(vector_width<From>, vector_width<To>);
  if (takes_vectors(x, width) && takes_vectors(y, width)) {
    run.template operator()<width>();
  } else {
    run.template operator()<1>();
  }
}

}  // namespace

void copy(Context& context, Tensor x, Tensor y) {
  if (x.is_contiguous() && y.is_contiguous()) x = flattened(x), y = flattened(y);
  if (x.dtype == y.dtype) return move_rows(context, x, nullptr, y, nullptr, y.rows());
  with_storage(x.dtype, [&]<class From>() {
    with_storage(y.dtype, [&]<class To>() {
      if constexpr (!std::is_same_v<From, To>) convert<From, To>(context, x, y);
    });
  });
}

void gather_rows(Context& context, Tensor x, Tensor index, Tensor y) {
  move_rows(context, x, elements<const int32_t>(index), y, nullptr, y.rows());
}

void scatter_rows(Context& context, Tensor x, Tensor index, Tensor y) {
  move_rows(context, x, nullptr, y, elements<const int32_t>(index), x.rows());
}

}  // namespace ptrain::cuda
