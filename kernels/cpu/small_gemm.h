// Products of matrices that fit into the first caches: the tiles of attention. Not for large matrices:
// nothing is packed.
#pragma once

#include "kernels/cpu/vector.h"
#include "kernels/ops/context.h"

namespace ptrain::cpu {

/// Element (i, p) lies at data + i * row_step + p * column_step: a matrix or a transposed one.
template <class T>
struct Strided {
  const T* data;
  int64_t row_step;
  int64_t column_step;
};

/// `rows` rows by two vectors of c, all sums in registers.
template <Write write, int64_t rows, class T>
inline void multiply_strip(int64_t k, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc) {
  Vector<T> sums[rows][2] = {};
  for (int64_t p = 0; p < k; ++p) {
    const Vector<T> b0 = load(b + p * ldb), b1 = load(b + p * ldb + lanes<T>);
    for (int64_t i = 0; i < rows; ++i) {
      const T factor = a.data[i * a.row_step + p * a.column_step];
      sums[i][0] += factor * b0;
      sums[i][1] += factor * b1;
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < 2; ++j) {
      T* to = c + i * ldc + j * lanes<T>;
      store(to, write == Write::accumulate ? load(to) + sums[i][j] : sums[i][j]);
    }
  }
}

/// c = a b or c += a b.   a: (m, k)   b: (k, n), rows ldb apart   c: (m, n), rows ldc apart; n is a multiple
/// of two vectors. Every element is one chain of k multiply-adds in ascending order.
template <Write write, class T>
void small_gemm(int64_t m, int64_t n, int64_t k, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc) {
  constexpr int64_t rows = accumulators / 2;
  for (int64_t j = 0; j < n; j += 2 * lanes<T>) {
    const auto strip = [&]<int64_t count>(int64_t i) {
      multiply_strip<write, count, T>(k, {a.data + i * a.row_step, a.row_step, a.column_step}, b + j, ldb,
                                      c + i * ldc + j, ldc);
    };
    int64_t i = 0;
    for (; i + rows <= m; i += rows) strip.template operator()<rows>(i);
    for (; i + 2 <= m; i += 2) strip.template operator()<2>(i);
    for (; i < m; ++i) strip.template operator()<1>(i);
  }
}

}  // namespace ptrain::cpu
