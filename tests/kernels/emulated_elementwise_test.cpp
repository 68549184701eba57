// The element-wise kernels beside their CPU twins: filling, adding, scaling and the sums.
#include "kernels/ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/scratch.h"
#include "kernels/ops/gemm.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

struct Case {
  int64_t rows, columns, gap;
};

/// One element, one column, rows that are and are not multiples of 16 bytes, gaps that keep and break the
/// alignment, and more than a block's span.
std::vector<Case> cases() {
  return {{1, 1, 0}, {5, 1, 0}, {3, 8, 0},     {5, 24, 8},   {7, 13, 3},   {9, 24, 3},
          {1, 7, 0}, {4, 6, 2}, {2, 1000, 24}, {3, 5003, 0}, {67, 577, 0}, {2, 9000, 0}};
}

class ElementwiseTwins : public testing::TestWithParam<DType> {};

TEST_P(ElementwiseTwins, AddAgreesOverOddShapesAndColumnViews) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [rows, columns, gap] : cases()) {
    for (int64_t other_gap : {int64_t{0}, gap}) {
      TwinTensor x(device, {rows, columns}, dtype, gap), y(device, {rows, columns}, dtype, other_gap);
      x.random(1), y.random(2);
      add(device.cpu(), x.cpu(), y.cpu());
      add(device.gpu(), x.gpu(), y.gpu());
      EXPECT_TRUE(y.agrees(rounded_once(dtype))) << rows << " x " << columns << " + " << gap;
      EXPECT_TRUE(x.same_bits());
    }
  }
}

TEST_P(ElementwiseTwins, FillAndScaleWriteTheTensorAndNothingElse) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [rows, columns, gap] : cases()) {
    TwinTensor x(device, {rows, columns}, dtype, gap), y(device, {rows, columns}, dtype, gap);
    x.random(1), y.random(2);
    scale(device.cpu(), x.cpu(), -0.3);
    scale(device.gpu(), x.gpu(), -0.3);
    fill(device.cpu(), y.cpu(), 1.0 / 3);
    fill(device.gpu(), y.gpu(), 1.0 / 3);
    EXPECT_TRUE(x.agrees(rounded_once(dtype))) << rows << " x " << columns << " + " << gap;
    EXPECT_TRUE(y.agrees({})) << rows << " x " << columns << " + " << gap;
  }
}

TEST_P(ElementwiseTwins, EveryThreadOfTheLargestGridGoesRoundAgain) {
  const DType dtype = GetParam();
  TestDevice device;
  TwinTensor x(device, {1, 1'100'003}, dtype);  // odd: one element an access
  x.random(3);
  scale(device.cpu(), x.cpu(), 2);
  scale(device.gpu(), x.gpu(), 2);
  EXPECT_TRUE(x.agrees({}));
}

TEST_P(ElementwiseTwins, AddBiasAddsOneRowToAll) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [rows, columns, gap] : cases()) {
    TwinTensor y(device, {rows, columns}, dtype, gap), bias(device, {columns}, dtype);
    y.random(1), bias.random(2);
    add_bias(device.cpu(), y.cpu(), bias.cpu());
    add_bias(device.gpu(), y.gpu(), bias.gpu());
    EXPECT_TRUE(y.agrees(rounded_once(dtype))) << rows << " x " << columns << " + " << gap;
    EXPECT_TRUE(bias.same_bits());
  }
}

TEST_P(ElementwiseTwins, BiasGradientIsTheColumnsSumInWhateverOrderThreadsRun) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const DType db_dtype : {dtype, DType::f32}) {
    for (const auto& [rows, columns, gap] : cases()) {
      for (const Write write : {Write::overwrite, Write::accumulate}) {
        TwinTensor dy(device, {rows, columns}, dtype, gap), db(device, {columns}, db_dtype);
        dy.random(1), db.random(2);
        linear_backward_bias(device.cpu(), dy.cpu(), db.cpu(), write);
        shuffle_order(1);
        linear_backward_bias(device.gpu(), dy.gpu(), db.gpu(), write);
        EXPECT_TRUE(db.agrees(rounded_once(db_dtype, static_cast<double>(rows))))
            << rows << " x " << columns << " + " << gap;
        const std::vector<double> first = db.values();
        db.random(2);
        shuffle_order(2);
        linear_backward_bias(device.gpu(), dy.gpu(), db.gpu(), write);
        EXPECT_EQ(db.values(), first);
      }
    }
  }
}

TEST_P(ElementwiseTwins, SumOfSquaresHasTheSameBitsInEveryOrder) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const int64_t count : {1, 8, 33, 2000, 16384, 70'001}) {
    TwinTensor x(device, {count}, dtype), sum(device, {1}, DType::f64);
    x.random(1), sum.fill(0.25);
    sum_of_squares(device.cpu(), x.cpu(), sum.cpu());
    shuffle_order(1);
    sum_of_squares(device.gpu(), x.gpu(), sum.gpu());
    EXPECT_TRUE(sum.agrees({.relative = 2e-7})) << count;
    const std::vector<double> first = sum.values();
    for (uint64_t seed : {2u, 3u}) {
      sum.fill(0.25);
      shuffle_order(seed);
      sum_of_squares(device.gpu(), x.gpu(), sum.gpu());
      EXPECT_EQ(sum.values(), first) << count;
    }
  }
}

TEST_P(ElementwiseTwins, SumOfSquaresOfAnInfinityOrNoNumberIsNotFinite) {
  TestDevice device;
  for (const double wrong : {INFINITY, NAN}) {
    std::vector<double> values(300, 1.0);
    values[271] = wrong;
    TwinTensor x(device, {300}, GetParam()), sum(device, {1}, DType::f64);
    x.set(values), sum.fill(0);
    sum_of_squares(device.gpu(), x.gpu(), sum.gpu());
    EXPECT_FALSE(std::isfinite(sum.values()[0]));
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ElementwiseTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

TEST(ElementwiseTwins, SumsInF64AreFilledScaledAndAdded) {
  TestDevice device;
  TwinTensor x(device, {3}, DType::f64), y(device, {3}, DType::f64);
  x.random(1), y.random(2);
  for (Context* context : {&device.cpu(), &device.gpu()}) {
    const bool is_cpu = context == &device.cpu();
    const Tensor a = is_cpu ? x.cpu() : x.gpu(), b = is_cpu ? y.cpu() : y.gpu();
    add(*context, a, b);
    scale(*context, b, 1.0 / 3);
    fill(*context, a, 0.1);
  }
  EXPECT_TRUE(x.agrees({}));
  EXPECT_TRUE(y.agrees({}));
}

TEST(ElementwiseTwins, AnEmptyTensorIsNoWork) {
  TestDevice device;
  TwinTensor x(device, {0, 5}, DType::f32), db(device, {5}, DType::f32), sum(device, {1}, DType::f64);
  db.fill(3), sum.fill(2);
  fill(device.gpu(), x.gpu(), 1);
  scale(device.gpu(), x.gpu(), 2);
  add(device.gpu(), x.gpu(), x.gpu());
  linear_backward_bias(device.gpu(), x.gpu(), db.gpu());
  sum_of_squares(device.gpu(), x.gpu(), sum.gpu());
  EXPECT_EQ(db.values(), std::vector<double>(5, 3));
  EXPECT_EQ(sum.values(), std::vector<double>{2});
}

TEST(ElementwiseTwins, TheScratchThatIsBookedIsEnough) {
  for (const int64_t N : {1, 7, 9, 700}) {
    TestDevice device(cuda::bias_scratch_bytes({.N = N, .C = 33}));
    TwinTensor dy(device, {N, 33}, DType::f32), db(device, {33}, DType::f32);
    dy.random(1), db.fill(0);
    linear_backward_bias(device.cpu(), dy.cpu(), db.cpu());
    linear_backward_bias(device.gpu(), dy.gpu(), db.gpu());
    EXPECT_TRUE(db.agrees(rounded_once(DType::f32, static_cast<double>(N)))) << N;
  }
  TestDevice device(cuda::sum_scratch_bytes({}));
  TwinTensor x(device, {3'000'001}, DType::f32), sum(device, {1}, DType::f64);
  x.fill(2), sum.fill(1);
  sum_of_squares(device.gpu(), x.gpu(), sum.gpu());
  EXPECT_EQ(sum.values()[0], 12'000'005);
}

TEST(ElementwiseTwins, TooLittleScratchIsRefusedWithBothNumbers) {
  TestDevice device(64);
  TwinTensor dy(device, {40, 33}, DType::f32), db(device, {33}, DType::f32);
  dy.random(1), db.fill(0);
  try {
    linear_backward_bias(device.gpu(), dy.gpu(), db.gpu());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("needs 660 bytes of scratch, 64 were granted"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ptrain
