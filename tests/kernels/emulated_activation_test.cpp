// SwiGLU's kernels beside their CPU twins.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/activation.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

struct Case {
  int64_t N, F, gap;
};

/// Halves that start where vectors may and where they may not; more than a block's span.
std::vector<Case> cases() {
  return {{1, 1, 0}, {5, 7, 0}, {3, 8, 0}, {9, 24, 8}, {4, 12, 0}, {7, 13, 3}, {2, 1000, 24}, {3, 2056, 0}};
}

class SwigluTwins : public testing::TestWithParam<DType> {};

TEST_P(SwigluTwins, ForwardAgreesOverOddShapesAndColumnViews) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [N, F, gap] : cases()) {
    TwinTensor gate_up(device, {N, 2 * F}, dtype, gap), y(device, {N, F}, dtype, gap);
    gate_up.random(1, 3), y.fill(0);
    swiglu_forward(device.cpu(), gate_up.cpu(), y.cpu());
    swiglu_forward(device.gpu(), gate_up.gpu(), y.gpu());
    EXPECT_TRUE(y.agrees(rounded_once(dtype, 1, 16))) << N << " x " << F << " + " << gap;
    EXPECT_TRUE(gate_up.same_bits());
  }
}

TEST_P(SwigluTwins, BackwardAgreesApartInPlaceAndWithTheResultAgain) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [N, F, gap] : cases()) {
    for (const bool is_in_place : {false, true}) {
      for (const bool has_y : {false, true}) {
        TwinTensor gate_up(device, {N, 2 * F}, dtype, gap), dy(device, {N, F}, dtype),
            apart(device, {N, 2 * F}, dtype), y(device, {N, F}, dtype, gap);
        gate_up.random(1, 3), dy.random(2), apart.fill(0), y.fill(0);
        TwinTensor& dgate_up = is_in_place ? gate_up : apart;
        swiglu_backward(device.cpu(), gate_up.cpu(), dy.cpu(), dgate_up.cpu(), has_y ? y.cpu() : Tensor());
        swiglu_backward(device.gpu(), gate_up.gpu(), dy.gpu(), dgate_up.gpu(), has_y ? y.gpu() : Tensor());
        EXPECT_TRUE(dgate_up.agrees(rounded_once(dtype, 4, 16))) << N << " x " << F << " + " << gap;
        EXPECT_TRUE(y.agrees(rounded_once(dtype, 1, 16))) << N << " x " << F << " + " << gap;
        EXPECT_TRUE(dy.same_bits());
      }
    }
  }
}

TEST_P(SwigluTwins, LargeGatesSaturateAndNeverBecomeNoNumbers) {
  const DType dtype = GetParam();
  TestDevice device;
  const std::vector<double> gates = {-60000, -1000, -104, -90, -88, 0, 88, 1000, 60000};
  const int64_t F = static_cast<int64_t>(gates.size());
  std::vector<double> both = gates;
  both.insert(both.end(), gates.size(), 0.5);
  TwinTensor gate_up(device, {1, 2 * F}, dtype), dy(device, {1, F}, dtype), y(device, {1, F}, dtype);
  gate_up.set(both), dy.fill(1), y.fill(7);
  swiglu_backward(device.cpu(), gate_up.cpu(), dy.cpu(), gate_up.cpu(), y.cpu());
  swiglu_backward(device.gpu(), gate_up.gpu(), dy.gpu(), gate_up.gpu(), y.gpu());
  for (const double value : y.values()) EXPECT_TRUE(std::isfinite(value));
  for (const double value : gate_up.values()) EXPECT_TRUE(std::isfinite(value));
  EXPECT_TRUE(y.agrees(rounded_once(dtype, 1, 16)));
  EXPECT_TRUE(gate_up.agrees(rounded_once(dtype, 1, 16)));
}

INSTANTIATE_TEST_SUITE_P(DTypes, SwigluTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace ptrain
