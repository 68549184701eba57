// Sums of squares in integers beside their CPU twin: the same total to the bit.
#include "kernels/ops/exact_sum.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "tests/support/twins.h"

namespace ptrain {
namespace {

/// Bins and their total on both sides.
struct TwinSum {
  explicit TwinSum(TestDevice& device)
      : device(device),
        cpu_bins({exact_bins, 2}, DType::i64),
        gpu_bins({exact_bins, 2}, DType::i64, device.device()),
        total(device, {1}, DType::f64) {}

  void add(const TwinTensor& x, Write write = Write::accumulate) {
    exact_sum_of_squares(device.cpu(), x.cpu(), cpu_bins.view, write);
    exact_sum_of_squares(device.gpu(), x.gpu(), gpu_bins.view, write);
  }
  testing::AssertionResult same_total() {
    exact_total(device.cpu(), cpu_bins.view, total.cpu());
    exact_total(device.gpu(), gpu_bins.view, total.gpu());
    return total.same_bits();
  }
  /// What the bins stand for, however it is parted.
  testing::AssertionResult same_bins() {
    const Buffer back = Buffer::staging(gpu_bins.view.bytes(), device.device());
    transfer(gpu_bins.view, Tensor(back.data(), gpu_bins.view.shape, DType::i64), device.stream());
    device.stream().synchronize();
    const auto* theirs = static_cast<const int64_t*>(back.data());
    const auto* ours = cpu_bins.view.as<int64_t>();
    for (int64_t e = 0; e < exact_bins; ++e) {
      const int64_t *a = ours + 2 * e, *b = theirs + 2 * e;
      const bool is_same = e == exact_bins - 1 ? a[0] == b[0] && a[1] == b[1]
                                               : a[1] + (a[0] >> 24) == b[1] + (b[0] >> 24) &&
                                                     a[0] % (1 << 24) == b[0] % (1 << 24);
      if (!is_same || b[0] < 0 || b[1] < 0)
        return testing::AssertionFailure()
               << "bin " << e << " is " << b[1] << ", " << b[0] << " and not " << a[1] << ", " << a[0];
    }
    return testing::AssertionSuccess();
  }

  TestDevice& device;
  OwnedTensor cpu_bins, gpu_bins;
  TwinTensor total;
};

/// Finite numbers of all exponents that the dtype has, zeros and subnormals among them.
std::vector<double> any_finite(int64_t count, DType dtype) {
  std::mt19937 random(7);
  std::vector<double> x;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(random());
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (dtype == DType::f16)
      value =
          std::ldexp(1.0f + static_cast<float>(bits % 1024) / 1024, static_cast<int>(bits >> 12) % 40 - 25);
    x.push_back(
        i % 13 == 0 || !std::isfinite(value) || std::fabs(value) > 3e38f ? 0.0 : static_cast<double>(value));
  }
  return x;
}

class ExactSumTwins : public testing::TestWithParam<DType> {};

TEST_P(ExactSumTwins, HoldTheSameIntegersInWhateverOrderThreadsRun) {
  TestDevice device;
  // One element; odd, so one element an access; runs of 16 bytes; blocks that are full and the rest of one.
  for (const int64_t count : {1, 7, 24, 1003, 8192, 8193, 40'008}) {
    TwinTensor x(device, {count}, GetParam());
    x.set(any_finite(count, GetParam()));
    for (uint64_t seed : {1, 2}) {
      shuffle_order(seed);
      TwinSum sum(device);
      sum.add(x);
      EXPECT_TRUE(sum.same_bins()) << count;
      EXPECT_TRUE(sum.same_total()) << count;
      sum.add(x);
      EXPECT_TRUE(sum.same_bins()) << count << ", twice";
      sum.add(x, Write::overwrite);
      EXPECT_TRUE(sum.same_bins()) << count << ", once again";
    }
  }
}

TEST_P(ExactSumTwins, TellInfinitiesFromNans) {
  TestDevice device;
  for (const auto& [first, last] :
       {std::pair{INFINITY, 1.0f}, {1.0f, -INFINITY}, {NAN, 1.0f}, {INFINITY, NAN}}) {
    std::vector<double> values = any_finite(9000, GetParam());
    values.front() = static_cast<double>(first);
    values.back() = static_cast<double>(last);
    TwinTensor x(device, {std::ssize(values)}, GetParam());
    x.set(values);
    TwinSum sum(device);
    sum.add(x);
    EXPECT_TRUE(sum.same_bins());
    EXPECT_TRUE(sum.same_total());
    const double total = sum.total.values()[0];
    EXPECT_TRUE(std::isnan(first) || std::isnan(last) ? std::isnan(total) : total == INFINITY) << total;
  }
}

TEST_P(ExactSumTwins, OfNothingAreNothing) {
  TestDevice device;
  TwinTensor x(device, {0}, GetParam());
  TwinSum sum(device);
  sum.add(x, Write::overwrite);
  EXPECT_TRUE(sum.same_bins());
  EXPECT_TRUE(sum.same_total());
  EXPECT_EQ(sum.total.values()[0], 0);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ExactSumTwins, testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace ptrain
