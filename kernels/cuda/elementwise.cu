// Moving, adding and counting elements on a GPU: bound by memory, so 16 bytes an access where the addresses
// allow it.
#include "kernels/ops/elementwise.h"

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

constexpr int threads = 256;

/// A tensor seen as a matrix: element (i, j) at data + i * stride + j.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;
};
template <class T>
Matrix<T> matrix(Tensor x) {
  return {elements<T>(x), x.row_stride};
}

/// Calls body(row, first column, width) for runs of up to `width` columns, one run a thread.
template <int width, class Body>
__device__ void for_each_run(int64_t rows, int64_t columns, Body body) {
  const int64_t runs = (columns + width - 1) / width;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * runs; i += step)
    body(i / runs, i % runs * width);
}

template <class T, int width>
__global__ void add_kernel(Matrix<const T> x, Matrix<T> y, int64_t rows, int64_t columns) {
  for_each_run<width>(rows, columns, [&](int64_t row, int64_t column) {
    const auto a = *reinterpret_cast<const Vector<T, width>*>(x.data + row * x.stride + column);
    auto* at = reinterpret_cast<Vector<T, width>*>(y.data + row * y.stride + column);
    Vector<T, width> b = *at;
    for (int i = 0; i < width; ++i) b.at[i] = from_float<T>(to_float(a.at[i]) + to_float(b.at[i]));
    *at = b;
  });
}

/// Blocks that keep a GPU busy without more of them than work.
dim3 blocks_for(int64_t runs) {
  return dim3(static_cast<unsigned>(std::min<int64_t>(divide_up(runs, threads), 132 * 16)));
}

}  // namespace

void add(Context& context, Tensor x, Tensor y) {
  with_element(y.dtype, [&]<class T>() {
    const int64_t rows = y.rows(), columns = y.columns();
    constexpr int width = vector_width<T>;
    if (is_vectorizable(x) && is_vectorizable(y)) {
      launch(context, add_kernel<T, width>, blocks_for(rows * columns / width), threads, 0,
             matrix<const T>(x), matrix<T>(y), rows, columns);
    } else {
      launch(context, add_kernel<T, 1>, blocks_for(rows * columns), threads, 0, matrix<const T>(x),
             matrix<T>(y), rows, columns);
    }
  });
}

}  // namespace ptrain::cuda
