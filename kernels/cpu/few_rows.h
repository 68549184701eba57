// y = x w' for a few rows of x, as in decoding: bound by reading w, which a BLAS would copy first. Not for
// many rows.
#pragma once

#include "kernels/cpu/vector.h"

namespace ptrain::cpu {

inline constexpr int64_t max_few_rows = 8;

/// sums[r] = x_r . w for `rows` rows of x and one row of w. One row of w at a time is one stream from memory:
/// the processor fetches ahead on it and reaches twice the rate of four rows side by side (measured on Zen
/// 4).
template <class S, int64_t rows>
inline void dots(const S* x, int64_t x_stride, const S* w, int64_t C, Wide<S>* sums) {
  using T = Wide<S>;
  constexpr int64_t chains = rows == 1 ? 4 : 2;  // sums that do not wait for each other
  constexpr int64_t step = chains * lanes<T>;
  Vector<T> partial[rows][chains] = {};
  int64_t c = 0;
  for (; c + step <= C; c += step) {
    for (int64_t i = 0; i < chains; ++i) {
      const Vector<T> weights = load_wide(w + c + i * lanes<T>);
      for (int64_t r = 0; r < rows; ++r)
        partial[r][i] += load_wide(x + r * x_stride + c + i * lanes<T>) * weights;
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 1; i < chains; ++i) partial[r][0] += partial[r][i];
    T sum = sum_of<T>(partial[r][0]);
    for (int64_t rest = c; rest < C; ++rest) sum += widen(x[r * x_stride + rest]) * widen(w[rest]);
    sums[r] = sum;
  }
}

/// Calls finish(r, o, sum) for outputs begin .. end - 1 of `rows` rows.
template <class S, int64_t rows, class Finish>
void few_rows_product(const S* x, int64_t x_stride, const S* w, int64_t w_stride, int64_t C, int64_t begin,
                      int64_t end, const Finish& finish) {
  Wide<S> sums[rows];
  for (int64_t o = begin; o < end; ++o) {
    dots<S, rows>(x, x_stride, w + o * w_stride, C, sums);
    for (int64_t r = 0; r < rows; ++r) finish(r, o, sums[r]);
  }
}

/// The same for a number of rows, at most max_few_rows, that is known only now.
template <class S, class Finish>
void few_rows_product(int64_t rows, const S* x, int64_t x_stride, const S* w, int64_t w_stride, int64_t C,
                      int64_t begin, int64_t end, const Finish& finish) {
  const auto of = [&]<int64_t count>() {
    few_rows_product<S, count>(x, x_stride, w, w_stride, C, begin, end, finish);
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
