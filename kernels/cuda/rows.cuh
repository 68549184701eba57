// Work that visits every element of a matrix once, in runs of up to 16 bytes, and sums over rows and blocks:
// what the kernels bound by memory share. Not for kernels that keep a row: see norm.cu.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace ptrain::cuda {

/// Threads of a block of the element-wise kernels, and blocks that keep the largest GPU busy twice over.
constexpr int run_threads = 256;
constexpr int64_t most_run_blocks = 132 * 16;

/// A tensor seen as a matrix: element (i, j) at data + i * stride + j.
template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t stride = 0;
  __device__ T* at(int64_t row, int64_t column) const { return data + row * stride + column; }
};
template <class T>
Matrix<T> matrix(Tensor x) {
  if (!x) return {};
  return {elements<T>(x), x.row_stride};
}

template <int width, class T>
__device__ inline Vector<std::remove_const_t<T>, width> load_run(const Matrix<T>& x, int64_t row,
                                                                 int64_t column) {
  return *reinterpret_cast<const Vector<std::remove_const_t<T>, width>*>(x.at(row, column));
}
template <int width, class T>
__device__ inline void store_run(const Matrix<T>& x, int64_t row, int64_t column,
                                 const Vector<T, width>& value) {
  *reinterpret_cast<Vector<T, width>*>(x.at(row, column)) = value;
}

/// Writes `width` sums one after another, 16 bytes an access where there are as many.
template <int width>
__device__ inline void store_sums(float* to, const float (&sums)[width]) {
  if constexpr (width % 4 == 0) {
    for (int i = 0; i < width; i += 4)
      store_vector(to + i, Vector<float, 4>{{sums[i], sums[i + 1], sums[i + 2], sums[i + 3]}});
  } else {
    for (int i = 0; i < width; ++i) to[i] = sums[i];
  }
}

/// What an element is computed in: f64 for f64, else f32.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
__device__ inline Wide<T> widen(T x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else {
    return to_float(x);
  }
}

/// f64 to f32 such that a second rounding to fewer bits ends where a single one would: an inexact result gets
/// its last bit set ("round to odd").
__device__ inline float to_float_odd(double x) {
  float nearest = static_cast<float>(x);
  const double back = nearest;
  if (back == x || x != x || back - back != 0) return nearest;
  uint32_t bits = 0;
  std::memcpy(&bits, &nearest, sizeof bits);
  const bool is_away = x < 0 ? back < x : back > x;
  bits = (is_away ? bits - 1 : bits) | 1u;
  std::memcpy(&nearest, &bits, sizeof bits);
  return nearest;
}

/// To nearest even.
template <class T, class From>
__device__ inline T narrow(From x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else if constexpr (std::is_same_v<T, float>) {
    return static_cast<float>(x);
  } else if constexpr (std::is_same_v<From, double>) {
    return from_float<T>(to_float_odd(x));
  } else {
    return from_float<T>(x);
  }
}

/// Calls body.operator()<T>() as with_element does, and for f64 too: sums and statistics.
template <class Body>
void with_storage(DType dtype, const Body& body) {
  if (dtype == DType::f64) return body.template operator()<double>();
  with_element(dtype, body);
}

/// Division of numbers from 0 to 2^31 - 1 by a number that the host knows, with a multiplication:
/// n / d = n * ceil(2^(31 + s) / d) / 2^(31 + s) with 2^s >= d.
class Divider {
 public:
  explicit Divider(int64_t divisor) : divisor_(static_cast<unsigned>(divisor)) {
    check(divisor >= 1 && divisor < int64_t{1} << 31, "{} columns are more than a kernel divides by",
          divisor);
    while (int64_t{1} << (shift_ - 31) < divisor) ++shift_;
    factor_ = static_cast<unsigned>(((uint64_t{1} << shift_) + divisor_ - 1) / divisor_);
  }
  __device__ unsigned quotient(unsigned n) const {
    return static_cast<unsigned>(static_cast<uint64_t>(n) * factor_ >> shift_);
  }
  __device__ unsigned divisor() const { return divisor_; }

 private:
  unsigned divisor_;
  unsigned factor_ = 0;
  int shift_ = 31;
};

/// The runs of a matrix: `count` of them, `per_row` in a row, one row after another.
struct Runs {
  int64_t count;
  Divider per_row;
  bool has_one_row;
};

/// Runs of `width` columns; columns must be a multiple of width.
inline Runs runs_of(int64_t rows, int64_t columns, int width) {
  const int64_t per_row = columns / width, count = rows * per_row;
  if (rows == 1) return {count, Divider(1), true};
  check(count < int64_t{1} << 31, "a column view of {} rows and {} columns is more than a kernel walks", rows,
        columns);
  return {count, Divider(std::max<int64_t>(per_row, 1)), false};
}

inline dim3 blocks_of(const Runs& runs) {
  // Two runs a thread: what is loaded before anything is stored.
  const int64_t blocks = std::min(divide_up(runs.count, 2 * run_threads), most_run_blocks);
  return dim3(static_cast<unsigned>(blocks));
}

/// For every run of `width` columns: write(row, column, read(row, column)). A thread reads two runs before it
/// writes one; a run is read and written by the same thread, so that the output may be the input.
template <int width, class Read, class Write>
__device__ inline void for_each_run(const Runs& runs, Read read, Write write) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const auto row_of = [&](int64_t i) -> int64_t {
    return runs.has_one_row ? 0 : runs.per_row.quotient(static_cast<unsigned>(i));
  };
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < runs.count;
       i += 2 * step) {
    const int64_t row = row_of(i), column = (i - row * runs.per_row.divisor()) * width;
    const auto first = read(row, column);
    if (i + step < runs.count) {
      const int64_t row2 = row_of(i + step), column2 = (i + step - row2 * runs.per_row.divisor()) * width;
      const auto second = read(row2, column2);
      write(row, column, first);
      write(row2, column2, second);
    } else {
      write(row, column, first);
    }
  }
}

/// What is read of two tensors before anything is written.
template <class T, int width>
struct RunPair {
  Vector<T, width> a, b;
};

/// Calls body.operator()<width>() with 16 bytes' elements or with 1.
template <class T, class Body>
void with_width(bool is_vectorizable, const Body& body) {
  if (is_vectorizable) return body.template operator()<vector_width<T>>();
  body.template operator()<1>();
}

/// Host: whether vectors of `width` elements may be read or written.
inline bool takes_vectors(Tensor x, int width) {
  const int64_t bytes = width * size_bytes(x.dtype);
  return reinterpret_cast<uintptr_t>(x.data) % static_cast<uintptr_t>(bytes) == 0 &&
         x.columns() % width == 0 && x.row_stride % width == 0;
}

/// A contiguous tensor as one row; others as they are.
inline Tensor flattened(Tensor x) {
  return x.is_contiguous() ? Tensor(x.data, {1, x.numel()}, x.dtype, x.device) : x;
}

/// Bytes from the start of the context's scratch. Errors (defect): the plan granted fewer.
template <class T>
T* granted(const Context& context, int64_t count, const char* op) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  check(context.scratch.bytes() >= bytes, "{} needs {} bytes of scratch, {} were granted", op, bytes,
        context.scratch.bytes());
  return static_cast<T*>(context.scratch.data);
}

template <class T>
__device__ inline T warp_sum(T value) {
  for (int offset = warp_size / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(all_lanes, value, offset);
  return value;
}

/// The sum on every thread of a block whose size is a multiple of 32. shared: 32 values that nobody reads or
/// writes in the barrier before and after: two calls in a row take two of them.
template <class T>
__device__ inline T block_sum(T value, T* shared) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
  value = warp_sum(value);
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return warp_sum(lane < warps ? shared[lane] : T{0});
}

}  // namespace ptrain::cuda
