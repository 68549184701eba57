// Values for communication tests: every rank can compute what every other rank holds, so that a naive result
// needs no communication.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/base/tensor.h"

namespace ptrain {

/// Element i of rank `rank`. Floats differ in magnitude by 2^20, so that another order of a sum shows.
template <class T>
T value_at(int rank, int64_t i) {
  // Multiplicative hashing: millions of them are made, and good randomness is not needed.
  uint64_t bits = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15U +
                  static_cast<uint64_t>(rank + 1) * 0xd1342543de82ef95U;
  bits = (bits ^ (bits >> 29)) * 0xbf58476d1ce4e5b9U;
  if constexpr (std::is_floating_point_v<T>) {
    const auto scale = static_cast<T>(uint64_t{1} << (bits % 21));
    return scale * (static_cast<T>(bits >> 40) / static_cast<T>(1 << 23) - T{1});
  } else {
    return static_cast<T>(bits >> 40);  // 24 bits: sums of a few fit in 32
  }
}

template <class T>
std::vector<T> values_of(int rank, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = value_at<T>(rank, i);
  return values;
}

/// The sum over ranks in ascending order, one element at a time.
template <class T>
std::vector<T> naive_sum(int ranks, int64_t count) {
  std::vector<T> sum = values_of<T>(0, count);
  for (int rank = 1; rank < ranks; ++rank) {
    for (int64_t i = 0; i < count; ++i) sum[static_cast<size_t>(i)] += value_at<T>(rank, i);
  }
  return sum;
}

template <class T>
Tensor tensor_of(std::vector<T>& values) {
  return Tensor(values.data(), {std::ssize(values)}, dtype_of<T>);
}

/// Whether the two hold the same bits; a NaN equals itself.
template <class T>
bool same_bits(std::span<const T> a, std::span<const T> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return same_bits(std::span<const T>(a), std::span<const T>(b));
}

}  // namespace ptrain
