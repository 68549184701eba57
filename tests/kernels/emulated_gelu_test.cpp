// GELU's kernels beside their CPU twins.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/gelu.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr Gelu kinds[] = {Gelu::erf, Gelu::tanh};

struct Case {
  int64_t N, F, gap;
};

/// Rows that start where vectors may and where they may not; more than a block's span.
std::vector<Case> cases() {
  return {{1, 1, 0}, {5, 7, 0}, {3, 8, 0}, {9, 24, 8}, {4, 12, 0}, {7, 13, 3}, {2, 1000, 24}, {3, 2056, 0}};
}

class GeluTwins : public testing::TestWithParam<DType> {};

TEST_P(GeluTwins, ForwardAgreesOverOddShapesAndColumnViewsAndInPlace) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Gelu kind : kinds) {
    for (const auto& [N, F, gap] : cases()) {
      TwinTensor x(device, {N, F}, dtype, gap), y(device, {N, F}, dtype);
      x.random(1, 3), y.fill(0);
      gelu_forward(device.cpu(), x.cpu(), y.cpu(), kind);
      gelu_forward(device.gpu(), x.gpu(), y.gpu(), kind);
      EXPECT_TRUE(y.agrees(rounded_once(dtype, 1, 16))) << N << " x " << F << " + " << gap;
      EXPECT_TRUE(x.same_bits());
      const std::vector<double> apart = y.values();
      gelu_forward(device.gpu(), x.gpu(), x.gpu(), kind);
      EXPECT_EQ(x.values(), apart) << N << " x " << F << " + " << gap;
    }
  }
}

/// Which tensor dx lies over.
enum class Over { none, x, dy };

TEST_P(GeluTwins, BackwardAgreesApartAndOverEitherInput) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Gelu kind : kinds) {
    for (const auto& [N, F, gap] : cases()) {
      for (const Over over : {Over::none, Over::x, Over::dy}) {
        TwinTensor x(device, {N, F}, dtype, gap), dy(device, {N, F}, dtype), apart(device, {N, F}, dtype);
        x.random(1, 3), dy.random(2), apart.fill(0);
        TwinTensor& dx = over == Over::x ? x : over == Over::dy ? dy : apart;
        gelu_backward(device.cpu(), x.cpu(), dy.cpu(), dx.cpu(), kind);
        gelu_backward(device.gpu(), x.gpu(), dy.gpu(), dx.gpu(), kind);
        EXPECT_TRUE(dx.agrees(rounded_once(dtype, 4, 16))) << N << " x " << F << " + " << gap;
        EXPECT_TRUE(over == Over::x || x.same_bits());
        EXPECT_TRUE(over == Over::dy || dy.same_bits());
      }
    }
  }
}

TEST_P(GeluTwins, LargeNumbersSaturateAndNeverBecomeNoNumbers) {
  const DType dtype = GetParam();
  TestDevice device;
  const std::vector<double> numbers = {-60000, -1000, -104, -17, -13, -9, -5, 0, 5, 9, 17, 104, 1000, 60000};
  const int64_t F = static_cast<int64_t>(numbers.size());
  for (const Gelu kind : kinds) {
    TwinTensor x(device, {1, F}, dtype), dy(device, {1, F}, dtype), y(device, {1, F}, dtype);
    x.set(numbers), dy.fill(1), y.fill(7);
    gelu_forward(device.cpu(), x.cpu(), y.cpu(), kind);
    gelu_forward(device.gpu(), x.gpu(), y.gpu(), kind);
    gelu_backward(device.cpu(), x.cpu(), dy.cpu(), dy.cpu(), kind);
    gelu_backward(device.gpu(), x.gpu(), dy.gpu(), dy.gpu(), kind);
    for (const double value : y.values()) EXPECT_TRUE(std::isfinite(value));
    for (const double value : dy.values()) EXPECT_TRUE(std::isfinite(value));
    EXPECT_TRUE(y.agrees(rounded_once(dtype, 1, 16)));
    EXPECT_TRUE(dy.agrees(rounded_once(dtype, 1, 16)));
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, GeluTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace ptrain
