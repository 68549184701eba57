// The rotary embedding's kernel beside its CPU twin.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/rope.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr int64_t P = 50;

/// Cosines and sines of made-up angles.
std::vector<double> table(int64_t R) {
  std::vector<double> values;
  for (int64_t i = 0; i < P * R; ++i) {
    const double angle = 0.37 * static_cast<double>(i / R) * std::pow(0.7, static_cast<double>(i % R));
    values.push_back(std::cos(angle)), values.push_back(std::sin(angle));
  }
  return values;
}

std::vector<int32_t> positions_of(int64_t N) {
  std::vector<int32_t> positions;
  for (int64_t n = 0; n < N; ++n) positions.push_back(static_cast<int32_t>(n * 7 % P));
  return positions;
}

struct Case {
  int64_t N, H, D, R, gap;
};

/// One head, more heads than a thread takes, heads that are rotated in part, halves that no vector fits.
std::vector<Case> cases() {
  return {{1, 1, 2, 1, 0},    {3, 1, 16, 8, 0},  {5, 9, 16, 8, 16}, {7, 5, 24, 8, 0}, {2, 32, 128, 64, 0},
          {11, 3, 64, 32, 8}, {4, 4, 20, 10, 0}, {6, 2, 12, 4, 3},  {3, 7, 5, 2, 0},  {40, 6, 64, 32, 64}};
}

class RopeTwins : public testing::TestWithParam<DType> {};

TEST_P(RopeTwins, RotatesEveryHeadThereAndBack) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [N, H, D, R, gap] : cases()) {
    for (const Rotation rotation : {Rotation::forward, Rotation::backward}) {
      TwinTensor x(device, {N, H * D}, dtype, gap), positions(device, {N}, DType::i32),
          cos_sin(device, {P, R, 2}, DType::f32);
      x.random(1), positions.set(positions_of(N)), cos_sin.set(table(R));
      rope(device.cpu(), x.cpu(), positions.cpu(), cos_sin.cpu(), D, rotation);
      rope(device.gpu(), x.gpu(), positions.gpu(), cos_sin.gpu(), D, rotation);
      EXPECT_TRUE(x.agrees(rounded_once(dtype)))
          << N << " rows, " << H << " heads of " << D << ", " << R << " rotated, gap " << gap;
      EXPECT_TRUE(positions.same_bits() && cos_sin.same_bits());
    }
  }
}

TEST_P(RopeTwins, BackwardUndoesForward) {
  const DType dtype = GetParam();
  TestDevice device;
  TwinTensor x(device, {9, 3 * 16}, dtype), positions(device, {9}, DType::i32),
      cos_sin(device, {P, 8, 2}, DType::f32);
  x.random(1), positions.set(positions_of(9)), cos_sin.set(table(8));
  rope(device.gpu(), x.gpu(), positions.gpu(), cos_sin.gpu(), 16, Rotation::forward);
  rope(device.gpu(), x.gpu(), positions.gpu(), cos_sin.gpu(), 16, Rotation::backward);
  EXPECT_TRUE(x.agrees(roundings(dtype)));  // the CPU's side was not touched
}

INSTANTIATE_TEST_SUITE_P(DTypes, RopeTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace ptrain
