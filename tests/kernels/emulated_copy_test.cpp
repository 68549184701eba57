// Copies on a device beside their CPU twins: every pair of dtypes, and copies of chosen rows.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/elementwise.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr DType floats[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

TEST(CopyTwins, EveryPairOfDTypesRoundsToTheSameBits) {
  TestDevice device;
  for (const DType from : floats) {
    for (const DType to : floats) {
      for (const auto& [rows, columns, gap, to_gap] : {std::tuple{1, 1, 0, 0},
                                                       {3, 8, 0, 0},
                                                       {5, 24, 8, 0},
                                                       {7, 13, 0, 3},
                                                       {2, 1000, 24, 8},
                                                       {1, 4999, 0, 0}}) {
        TwinTensor x(device, {rows, columns}, from, gap), y(device, {rows, columns}, to, to_gap);
        x.random(1, 300), y.fill(7);
        copy(device.cpu(), x.cpu(), y.cpu());
        copy(device.gpu(), x.gpu(), y.gpu());
        EXPECT_TRUE(y.same_bits()) << name_of(from) << " to " << name_of(to) << ", " << rows << " x "
                                   << columns;
        EXPECT_TRUE(x.same_bits());
      }
    }
  }
}

TEST(CopyTwins, TiesTinyAndHugeNumbersRoundAsOnTheCPU) {
  TestDevice device;
  const double just_above_a_tie = 1 + 0x1p-9 + 0x1p-40;  // of bf16; f32 alone would see the tie
  const std::vector<double> values = {0,
                                      -0.0,
                                      1 + 0x1p-9,
                                      just_above_a_tie,
                                      -just_above_a_tie,
                                      1 + 3 * 0x1p-9,
                                      1 + 0x1p-12,
                                      0x1p-24,
                                      0x1p-25,
                                      1.5 * 0x1p-25,
                                      65504,
                                      65519.9,
                                      65520,
                                      1e30,
                                      1e-30,
                                      -1e39,
                                      INFINITY,
                                      -INFINITY};
  for (const DType from : {DType::f64, DType::f32}) {
    for (const DType to : {DType::f32, DType::bf16, DType::f16}) {
      TwinTensor x(device, {static_cast<int64_t>(values.size())}, from),
          y(device, {static_cast<int64_t>(values.size())}, to);
      x.set(values), y.fill(7);
      copy(device.cpu(), x.cpu(), y.cpu());
      copy(device.gpu(), x.gpu(), y.gpu());
      EXPECT_TRUE(y.same_bits()) << name_of(from) << " to " << name_of(to);
    }
  }
}

TEST(CopyTwins, NoNumberStaysNoNumber) {
  TestDevice device;
  for (const DType from : floats) {
    for (const DType to : floats) {
      TwinTensor x(device, {9}, from), y(device, {9}, to);
      x.fill(NAN), y.fill(7);
      copy(device.gpu(), x.gpu(), y.gpu());
      for (const double value : y.values())
        EXPECT_TRUE(std::isnan(value)) << name_of(from) << " to " << name_of(to);
    }
  }
}

TEST(CopyTwins, WholeNumbersAreCopiedBitByBit) {
  TestDevice device;
  TwinTensor x(device, {77}, DType::i32), y(device, {77}, DType::i32);
  std::vector<int32_t> values(77);
  for (int32_t i = 0; i < 77; ++i) values[static_cast<size_t>(i)] = i * 27'000'000;
  x.set(values), y.set(std::vector<int32_t>(77, 1));
  copy(device.cpu(), x.cpu(), y.cpu());
  copy(device.gpu(), x.gpu(), y.gpu());
  EXPECT_TRUE(y.same_bits());
}

TEST(CopyTwins, RowsAreGatheredAndScattered) {
  TestDevice device;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const auto& [columns, gap] : {std::tuple{1, 0}, {8, 0}, {24, 8}, {13, 3}, {2050, 0}}) {
      TwinTensor x(device, {11, columns}, dtype, gap), y(device, {5, columns}, dtype),
          again(device, {11, columns}, dtype, gap), index(device, {5}, DType::i32);
      x.random(1), y.random(2), again.random(3), index.set(std::vector<int32_t>{10, 3, 0, 7, 4});
      gather_rows(device.cpu(), x.cpu(), index.cpu(), y.cpu());
      gather_rows(device.gpu(), x.gpu(), index.gpu(), y.gpu());
      scatter_rows(device.cpu(), y.cpu(), index.cpu(), again.cpu());
      scatter_rows(device.gpu(), y.gpu(), index.gpu(), again.gpu());
      EXPECT_TRUE(y.same_bits()) << name_of(dtype) << ", " << columns << " columns";
      EXPECT_TRUE(again.same_bits()) << name_of(dtype) << ", " << columns << " columns";
    }
  }
}

}  // namespace
}  // namespace ptrain
