// An op on a device beside the same op on a CPU: tensors that exist twice, with sentinels around each, and
// the comparison of what both became. The device is a GPU, or the emulated one, as the test was linked.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/stream.h"
#include "kernels/ops/context.h"
#include "kernels/ops/libraries.h"

namespace ptrain {

/// Contexts of both sides.
class TestDevice {
 public:
  explicit TestDevice(int64_t scratch_bytes = int64_t{8} << 20, const LibraryOptions& options = {});

  Context& cpu() { return cpu_; }
  Context& gpu() { return gpu_; }
  const Stream& stream() const { return stream_; }
  Device device() const { return gpu_.device; }

 private:
  Stream stream_;
  std::unique_ptr<Libraries> libraries_;
  Buffer scratch_, cpu_scratch_;
  Context cpu_, gpu_;
};

/// Another order of threads, blocks and streams on an emulated device. A GPU has its own.
void shuffle_order(uint64_t seed);

/// How far a device's element may be from the CPU's: relative * |expected| + absolute.
struct Closeness {
  double relative = 0, absolute = 0;
};
/// A few roundings of that dtype: for element-wise formulas of numbers of size `magnitude`.
Closeness roundings(DType dtype, double magnitude = 1, double count = 4);
/// f32 arithmetic on numbers of size `magnitude`, whose result is rounded once to the dtype: neighbours of
/// each other at most.
Closeness rounded_once(DType dtype, double magnitude = 1, double count = 4);

/// One tensor on both sides. Rows are `gap` elements wider than the tensor; gaps and margins hold sentinels.
class TwinTensor {
 public:
  TwinTensor(TestDevice& device, Shape shape, DType dtype, int64_t gap = 0);

  Tensor cpu() const { return view(host_.data(), {}); }
  Tensor gpu() const { return view(device_.data(), device_.device()); }

  /// The same values on both sides: normal * size, one value, or given ones (floats are rounded to the
  /// dtype).
  TwinTensor& random(uint64_t seed, double size = 1);
  TwinTensor& fill(double value);
  TwinTensor& set(const std::vector<double>& values);
  TwinTensor& set(const std::vector<int32_t>& values);

  /// Waits for the device, then compares; also the sentinels of both sides, which must be as they were.
  testing::AssertionResult agrees(Closeness closeness);
  testing::AssertionResult same_bits();
  /// The device's values, after waiting for it.
  std::vector<double> values();

 private:
  Tensor view(void* data, Device where) const;
  void upload();
  void download();
  std::vector<double> values_of(const void* bytes) const;
  testing::AssertionResult sentinels(const void* bytes, const char* side) const;

  TestDevice& owner_;
  Shape shape_;
  DType dtype_;
  int64_t stride_ = 0;
  Buffer host_, device_, back_;
};

}  // namespace ptrain
