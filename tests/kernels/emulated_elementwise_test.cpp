// The element-wise kernels beside their CPU twins.
#include "kernels/ops/elementwise.h"

#include <gtest/gtest.h>

#include "tests/support/twins.h"

namespace ptrain {
namespace {

class ElementwiseTwins : public testing::TestWithParam<DType> {};

TEST_P(ElementwiseTwins, AddAgreesOverOddShapesAndColumnViews) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [rows, columns, gap] :
       {std::tuple{1, 1, 0}, {3, 8, 0}, {5, 24, 8}, {7, 13, 3}, {2, 1000, 24}}) {
    TwinTensor x(device, {rows, columns}, dtype, gap), y(device, {rows, columns}, dtype);
    x.random(1), y.random(2);
    add(device.cpu(), x.cpu(), y.cpu());
    add(device.gpu(), x.gpu(), y.gpu());
    EXPECT_TRUE(y.agrees(roundings(dtype)));
    EXPECT_TRUE(x.same_bits());
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ElementwiseTwins, testing::Values(DType::f32));

}  // namespace
}  // namespace ptrain
