// Matrices for the tests of ops: NaN around every row and in every output before it is written, so that reads
// and writes outside of a tensor show.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/rng.h"
#include "kernels/cpu/convert.h"
#include "kernels/ops/context.h"

namespace ptrain {

/// Element types of the ops, and those whose arithmetic is wider than they are.
using Storages = testing::Types<float, double, BFloat16, Float16>;
using NarrowStorages = testing::Types<BFloat16, Float16>;

/// The value that T keeps of x.
template <class T>
double rounded(double x) {
  return static_cast<double>(cpu::widen(cpu::convert<T>(x)));
}

/// A (rows, columns) matrix of T; `gap` > 0 makes it a column view inside wider rows.
template <class T>
class Guarded {
 public:
  Guarded(int64_t rows, int64_t columns, int64_t gap = 0)
      : rows_(rows),
        columns_(columns),
        stride_(columns + gap),
        storage_(static_cast<size_t>(rows * stride_ + 2 * margin), cpu::convert<T>(std::nan(""))) {}

  Tensor view() { return view(Shape{rows_, columns_}); }
  Tensor view(Shape shape) {
    Tensor tensor(storage_.data() + margin, shape, dtype_of<T>);
    tensor.row_stride = shape.columns() == columns_ ? stride_ : shape.columns();
    return tensor;
  }
  T& at(int64_t row, int64_t column) {
    return storage_[static_cast<size_t>(margin + row * stride_ + column)];
  }
  double operator()(int64_t row, int64_t column) const {
    return static_cast<double>(cpu::widen(storage_[static_cast<size_t>(margin + row * stride_ + column)]));
  }
  /// All elements; only where there is no gap.
  std::span<T> span() { return {storage_.data() + margin, static_cast<size_t>(rows_ * columns_)}; }

  std::vector<double> values() const {
    std::vector<double> all;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) all.push_back((*this)(r, c));
    }
    return all;
  }
  Guarded& random(uint64_t stream, double scale = 1) {
    const Rng rng(7, stream);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) {
        at(r, c) = cpu::convert<T>(scale * rng.normal(static_cast<uint64_t>(r * columns_ + c)));
      }
    }
    return *this;
  }
  Guarded& fill(double value) {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) at(r, c) = cpu::convert<T>(value);
    }
    return *this;
  }
  /// Nothing was written outside of the matrix.
  bool intact() const {
    for (int64_t i = 0; i < static_cast<int64_t>(storage_.size()); ++i) {
      const int64_t inside = i - margin;
      const bool is_element = inside >= 0 && inside < rows_ * stride_ && inside % stride_ < columns_;
      if (!is_element && !std::isnan(cpu::widen(storage_[static_cast<size_t>(i)]))) return false;
    }
    return true;
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 private:
  static constexpr int64_t margin = 64;
  int64_t rows_, columns_, stride_;
  std::vector<T> storage_;
};

/// Integers as a tensor over a vector that stays the caller's.
inline Tensor ids_of(std::vector<int32_t>& ids) {
  return Tensor(ids.data(), Shape{static_cast<int64_t>(ids.size())}, DType::i32);
}

/// Scratch is the calling thread's own.
inline Context cpu_context(int threads = 1) {
  static thread_local const Buffer scratch(int64_t{16} << 20);
  Context context;
  context.threads = threads;
  context.scratch = Tensor(scratch.data(), {scratch.bytes()}, DType::u8);
  return context;
}

/// Sum of x * weight over all elements: a loss whose gradient by x is `weight`.
template <class T>
double weighted_sum(const Guarded<T>& x, const Guarded<T>& weight) {
  double sum = 0;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.columns(); ++c) sum += x(r, c) * weight(r, c);
  }
  return sum;
}

}  // namespace ptrain
