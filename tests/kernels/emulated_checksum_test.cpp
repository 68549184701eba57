// Checksums beside their CPU twin: the same number.
#include "kernels/ops/checksum.h"

#include <gtest/gtest.h>

#include "tests/support/twins.h"

namespace ptrain {
namespace {

Tensor from(Tensor x, int64_t first) {
  return Tensor(x.at(first), Shape{x.numel() - first}, x.dtype, x.device);
}

/// The same eight bytes.
Tensor integer(Tensor number) {
  return Tensor(number.data, {1}, DType::i64, number.device);
}

class ChecksumTwins : public testing::TestWithParam<DType> {};

TEST_P(ChecksumTwins, AreEqualInWhateverOrderThreadsRun) {
  TestDevice device;
  // Odd: one element an access. Runs of 16 bytes; a part of a block, some blocks. From any element on.
  for (const int64_t count : {0, 1, 7, 24, 1003, 8192, 40'008}) {
    for (const int64_t first : {0, 1}) {
      if (first > count) continue;
      TwinTensor x(device, {count}, GetParam()), sum(device, {1}, DType::f64);
      x.random(1);
      for (uint64_t seed : {1, 2}) {
        shuffle_order(seed);
        sum.fill(3);
        for (const uint64_t factor : {uint64_t{1}, uint64_t{0x9E3779B97F4A7C15}}) {
          checksum(device.cpu(), from(x.cpu(), first), integer(sum.cpu()), factor);
          checksum(device.gpu(), from(x.gpu(), first), integer(sum.gpu()), factor);
        }
        EXPECT_TRUE(sum.same_bits()) << count << " from " << first;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ChecksumTwins,
                         testing::Values(DType::f32, DType::bf16, DType::f16, DType::f64, DType::f8_e4m3));

}  // namespace
}  // namespace ptrain
