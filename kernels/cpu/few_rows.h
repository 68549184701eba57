// y = x w' for a few rows of x, as in decoding: bound by reading w, which a BLAS would copy first. Not for
// many rows.
#pragma once

#include "kernels/cpu/vector.h"

namespace ptrain::cpu {

inline constexpr int64_t max_few_rows = 8;

/// sums[r * outputs + o] = x_r . w_o for `rows` rows of x and `outputs` rows of w. Each is summed in the same
/// order whatever rows and outputs are.
template <class T, int64_t rows, int64_t outputs>
inline void dots(const T* x, int64_t x_stride, const T* w, int64_t w_stride, int64_t C, T* sums) {
  Vector<T> partial[rows][outputs] = {};
  int64_t c = 0;
  for (; c + lanes<T> <= C; c += lanes<T>) {
    Vector<T> weights[outputs];
    for (int64_t o = 0; o < outputs; ++o) weights[o] = load(w + o * w_stride + c);
    for (int64_t r = 0; r < rows; ++r) {
      const Vector<T> row = load(x + r * x_stride + c);
      for (int64_t o = 0; o < outputs; ++o) partial[r][o] += row * weights[o];
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < outputs; ++o) {
      T sum = sum_of<T>(partial[r][o]);
      for (int64_t rest = c; rest < C; ++rest) sum += x[r * x_stride + rest] * w[o * w_stride + rest];
      sums[r * outputs + o] = sum;
    }
  }
}

/// Calls finish(r, o, sum) for outputs begin .. end - 1 of `rows` rows.
template <class T, int64_t rows, class Finish>
void few_rows_product(const T* x, int64_t x_stride, const T* w, int64_t w_stride, int64_t C, int64_t begin,
                      int64_t end, const Finish& finish) {
  constexpr int64_t outputs = rows <= accumulators / 4 ? 4 : 2;
  T sums[rows * outputs];
  int64_t o = begin;
  for (; o + outputs <= end; o += outputs) {
    dots<T, rows, outputs>(x, x_stride, w + o * w_stride, w_stride, C, sums);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < outputs; ++i) finish(r, o + i, sums[r * outputs + i]);
    }
  }
  for (; o < end; ++o) {
    dots<T, rows, 1>(x, x_stride, w + o * w_stride, w_stride, C, sums);
    for (int64_t r = 0; r < rows; ++r) finish(r, o, sums[r]);
  }
}

/// The same for a number of rows, at most max_few_rows, that is known only now.
template <class T, class Finish>
void few_rows_product(int64_t rows, const T* x, int64_t x_stride, const T* w, int64_t w_stride, int64_t C,
                      int64_t begin, int64_t end, const Finish& finish) {
  const auto of = [&]<int64_t count>() {
    few_rows_product<T, count>(x, x_stride, w, w_stride, C, begin, end, finish);
  };
  switch (rows) {
    case 1:
      return of.template operator()<1>();
    case 2:
      return of.template operator()<2>();
    case 3:
      return of.template operator()<3>();
    case 4:
      return of.template operator()<4>();
    case 5:
      return of.template operator()<5>();
    case 6:
      return of.template operator()<6>();
    case 7:
      return of.template operator()<7>();
    default:
      return of.template operator()<8>();
  }
}

}  // namespace ptrain::cpu
