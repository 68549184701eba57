// Products of matrices that fit into the first caches: the tiles of attention. Not for large matrices:
// nothing is packed.
#pragma once

#include "kernels/cpu/vector.h"

namespace ptrain::cpu {

/// Element (i, p) lies at data + i * row_step + p * column_step: a matrix or a transposed one.
template <class T>
struct Strided {
  const T* data;
  int64_t row_step;
  int64_t column_step;
};

/// `rows` rows by two vectors of c, all sums in registers.
template <class T, int64_t rows>
inline void multiply_strip(int64_t k, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc,
                           bool accumulate) {
  Vector<T> sums[rows][2];
  for (int64_t i = 0; i < rows; ++i) {
    sums[i][0] = accumulate ? load(c + i * ldc) : Vector<T>{};
    sums[i][1] = accumulate ? load(c + i * ldc + lanes<T>) : Vector<T>{};
  }
  for (int64_t p = 0; p < k; ++p) {
    const Vector<T> b0 = load(b + p * ldb), b1 = load(b + p * ldb + lanes<T>);
    for (int64_t i = 0; i < rows; ++i) {
      const T factor = a.data[i * a.row_step + p * a.column_step];
      sums[i][0] += factor * b0;
      sums[i][1] += factor * b1;
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    store(c + i * ldc, sums[i][0]);
    store(c + i * ldc + lanes<T>, sums[i][1]);
  }
}

/// c = a b or c += a b.   a: (m, k)   b: (k, n), rows ldb apart   c: (m, n), rows ldc apart; n is a multiple
/// of two vectors. Every element is one chain of k multiply-adds in ascending order.
template <class T>
inline void small_gemm(int64_t m, int64_t n, int64_t k, Strided<T> a, const T* b, int64_t ldb, T* c,
                       int64_t ldc, bool accumulate) {
  constexpr int64_t rows = accumulators / 2;
  for (int64_t j = 0; j < n; j += 2 * lanes<T>) {
    int64_t i = 0;
    const auto strip = [&](int64_t row) {
      return Strided<T>{a.data + row * a.row_step, a.row_step, a.column_step};
    };
    for (; i + rows <= m; i += rows)
      multiply_strip<T, rows>(k, strip(i), b + j, ldb, c + i * ldc + j, ldc, accumulate);
    for (; i + 2 <= m; i += 2)
      multiply_strip<T, 2>(k, strip(i), b + j, ldb, c + i * ldc + j, ldc, accumulate);
    for (; i < m; ++i) multiply_strip<T, 1>(k, strip(i), b + j, ldb, c + i * ldc + j, ldc, accumulate);
  }
}

}  // namespace ptrain::cpu
