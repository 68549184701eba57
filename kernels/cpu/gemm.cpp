// Linear layers on a CPU: tiles of the output shared out over the threads, each computed by one call of the
// BLAS on one thread.
#include <algorithm>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class T>
struct Matrix {
  T* data;
  int64_t stride;
};

template <class T>
Matrix<T> matrix_of(Tensor x) {
  return {x.as<T>(), x.row_stride};
}

/// c = op(a) op(b) + beta c with op(a): (m, k), op(b): (k, n); the longer side of c is cut over the threads.
template <class T>
void multiply(int threads, Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k,
              Matrix<T> a, Matrix<T> b, Write write, Matrix<T> c) {
  const T beta = write == Write::accumulate ? T{1} : T{0};
  const bool cut_rows = m >= n;
  const int64_t grain =
      std::max<int64_t>(min_elements_per_thread * 32 / std::max<int64_t>(k * std::min(m, n), 1), 1);
  parallel_ranges(threads, cut_rows ? m : n, grain, 16, [&](int64_t begin, int64_t end) {
    if (cut_rows) {
      blas_gemm(transpose_a, transpose_b, end - begin, n, k,
                a.data + (transpose_a == Transpose::yes ? begin : begin * a.stride), a.stride, b.data,
                b.stride, beta, c.data + begin * c.stride, c.stride);
    } else {
      blas_gemm(transpose_a, transpose_b, m, end - begin, k, a.data, a.stride,
                b.data + (transpose_b == Transpose::yes ? begin * b.stride : begin), b.stride, beta,
                c.data + begin, c.stride);
    }
  });
}

}  // namespace

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write) {
  with_float(y.dtype, [&]<class T>() {
    multiply<T>(context.threads, Transpose::no, Transpose::yes, y.rows(), y.columns(), x.columns(),
                matrix_of<T>(x), matrix_of<T>(w), write, matrix_of<T>(y));
  });
  if (bias) cpu::add_bias(context, y, bias);
}

void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write) {
  with_float(dx.dtype, [&]<class T>() {
    multiply<T>(context.threads, Transpose::no, Transpose::no, dx.rows(), dx.columns(), dy.columns(),
                matrix_of<T>(dy), matrix_of<T>(w), write, matrix_of<T>(dx));
  });
}

void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write) {
  if (x.rows() == 0) {
    if (write == Write::overwrite) cpu::fill(context, dw, 0);
    return;
  }
  with_float(dw.dtype, [&]<class T>() {
    multiply<T>(context.threads, Transpose::yes, Transpose::no, dw.rows(), dw.columns(), x.rows(),
                matrix_of<T>(dy), matrix_of<T>(x), write, matrix_of<T>(dw));
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
