// Transposition of small matrices, a square block of registers at a time.
#pragma once

#include <type_traits>

#include "kernels/cpu/vector.h"

namespace ptrain::cpu {

/// Integers of the width of T.
template <class T>
using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

/// Swaps blocks of `width` lanes between rows i and i + width, for every such pair: one of log2(lanes) steps.
template <class T, int64_t width>
inline void exchange_blocks(Vector<T>* rows) {
  // Which lane of the two registers comes to each lane; the second register's count from lanes<T>.
  constexpr auto all = static_cast<Integer<T>>(lanes<T>), step = static_cast<Integer<T>>(width);
  Vector<Integer<T>> low{}, high{};
  for (Integer<T> lane = 0; lane < all; ++lane) {
    low[lane] = lane & step ? all + lane - step : lane;
    high[lane] = lane & step ? all + lane : lane + step;
  }
  for (int64_t i = 0; i < lanes<T>; ++i) {
    if (i & width) continue;
    const Vector<T> a = rows[i], b = rows[i + width];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + width] = __builtin_shuffle(a, b, high);
  }
  if constexpr (width > 1) exchange_blocks<T, width / 2>(rows);
}

/// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns.
template <class T>
void transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
  const int64_t whole_rows = rows / lanes<T> * lanes<T>, whole_columns = columns / lanes<T> * lanes<T>;
  for (int64_t i = 0; i < whole_rows; i += lanes<T>) {
    for (int64_t j = 0; j < whole_columns; j += lanes<T>) {
      Vector<T> block[lanes<T>];
      for (int64_t r = 0; r < lanes<T>; ++r) block[r] = load(from + (i + r) * from_stride + j);
      exchange_blocks<T, lanes<T> / 2>(block);
      for (int64_t r = 0; r < lanes<T>; ++r) store(to + (j + r) * to_stride + i, block[r]);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_stride + i] = from[i * from_stride + j];
  }
}

}  // namespace ptrain::cpu
