// Cross-entropy's kernels beside their CPU twins: statistics, their combination, sums and gradients.
#include "kernels/ops/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/base/rng.h"
#include "kernels/ops/elementwise.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Case {
  int64_t R, V, gap, first_id;
  double size;  // of the logits
};
// Rows that start anywhere in 16 bytes, rows shorter than one vector, rows longer than a block's sweep.
const Case cases[] = {{1, 1, 0, 0, 1},    {3, 7, 2, 0, 1},     {5, 64, 0, 100, 3},
                      {4, 1001, 0, 0, 3}, {3, 5000, 3, 77, 9}, {2, 4096, 8, 0, 30}};

/// Targets inside and outside of the local ids.
std::vector<int32_t> targets_of(const Case& c) {
  const Rng rng(5, 1);
  std::vector<int32_t> targets;
  for (int64_t r = 0; r < c.R; ++r) {
    const auto id = static_cast<int64_t>(rng.below(static_cast<uint64_t>(r), static_cast<uint64_t>(2 * c.V)));
    targets.push_back(static_cast<int32_t>(c.first_id + id - c.V / 2));
  }
  targets[0] = static_cast<int32_t>(c.first_id + c.V - 1);
  return targets;
}

/// Logits on the device in their dtype and beside them, for the CPU, the same numbers in f32.
struct Logits {
  TwinTensor narrow, wide;

  Logits(TestDevice& device, const Case& c, DType dtype)
      : narrow(device, {c.R, c.V}, dtype, c.gap), wide(device, {c.R, c.V}, DType::f32) {
    narrow.random(1, c.size);
    copy(device.cpu(), narrow.cpu(), wide.cpu());
  }
};

class LossTwins : public testing::TestWithParam<DType> {};

TEST_P(LossTwins, StatisticsAndGradientAgree) {
  TestDevice device;
  for (const Case& c : cases) {
    Logits logits(device, c, GetParam());
    TwinTensor targets(device, {c.R}, DType::i32), statistics(device, {c.R, 3}, DType::f32);
    targets.set(targets_of(c)), statistics.fill(7);
    loss_statistics(device.cpu(), logits.wide.cpu(), targets.cpu(), c.first_id, statistics.cpu());
    loss_statistics(device.gpu(), logits.narrow.gpu(), targets.gpu(), c.first_id, statistics.gpu());
    // A GPU's short exp() of 16-bit logits errs by up to 2 + |x| units of a term (CUDA's programming guide).
    EXPECT_TRUE(statistics.agrees(roundings(DType::f32, 0, GetParam() == DType::f32 ? 8 : 24))) << c.V;
    EXPECT_TRUE(targets.same_bits() && logits.narrow.same_bits());

    loss_backward(device.cpu(), logits.wide.cpu(), statistics.cpu(), targets.cpu(), c.first_id, 0.37);
    copy(device.cpu(), logits.wide.cpu(), logits.narrow.cpu());
    loss_backward(device.gpu(), logits.narrow.gpu(), statistics.gpu(), targets.gpu(), c.first_id, 0.37);
    // Relative to each entry but for what f16 cannot hold: a rounding, and exp() of both sides.
    Closeness closeness = roundings(GetParam(), 0, GetParam() == DType::f32 ? 24 : 2.1);
    closeness.absolute = GetParam() == DType::f16 ? 0x1p-24 : 1e-37;
    EXPECT_TRUE(logits.narrow.agrees(closeness)) << c.V;
  }
}

TEST_P(LossTwins, EveryPlaceOfTheTargetGetsItsOwnGradient) {
  // Also before and behind the part of a row that is read by vectors.
  constexpr int64_t R = 40, V = 40;
  TestDevice device;
  const Case c{R, V, 1, 0, 2};
  Logits logits(device, c, GetParam());
  TwinTensor targets(device, {R}, DType::i32), statistics(device, {R, 3}, DType::f32);
  std::vector<int32_t> places(R);
  for (int64_t r = 0; r < R; ++r) places[static_cast<size_t>(r)] = static_cast<int32_t>(r);
  targets.set(places);
  loss_statistics(device.cpu(), logits.wide.cpu(), targets.cpu(), 0, statistics.cpu());
  loss_statistics(device.gpu(), logits.narrow.gpu(), targets.gpu(), 0, statistics.gpu());
  loss_backward(device.gpu(), logits.narrow.gpu(), statistics.gpu(), targets.gpu(), 0, 1);
  EXPECT_TRUE(statistics.agrees(roundings(DType::f32, 0, GetParam() == DType::f32 ? 8 : 24)));
  const std::vector<double> gradient = logits.narrow.values();
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t v = 0; v < V; ++v) EXPECT_EQ(gradient[static_cast<size_t>(r * V + v)] < 0, r == v);
  }
}

TEST_P(LossTwins, InfiniteLogitsAreLikeThoseOnTheCpu) {
  TestDevice device;
  const Case c{5, 700, 0, 0, 1};
  Logits logits(device, c, GetParam());
  std::vector<double> values = logits.narrow.values();
  const auto at = [&](int64_t r, int64_t v) -> double& { return values[static_cast<size_t>(r * c.V + v)]; };
  for (int64_t v = 0; v < c.V; ++v) at(1, v) = v == 613 ? 2.0 : -infinity;  // one finite logit
  for (int64_t v = 0; v < c.V; ++v) at(2, v) = -infinity;
  at(3, 8) = std::nan("");
  at(4, 9) = infinity;
  logits.narrow.set(values);
  TwinTensor targets(device, {c.R}, DType::i32), statistics(device, {c.R, 3}, DType::f32),
      sum(device, {1}, DType::f64);
  targets.set(std::vector<int32_t>{3, 613, 0, 1, 1});
  loss_statistics(device.gpu(), logits.narrow.gpu(), targets.gpu(), 0, statistics.gpu());
  const std::vector<double> got = statistics.values();
  EXPECT_EQ(got[3], 2.0);
  EXPECT_EQ(got[4], 1.0);
  EXPECT_EQ(got[5], 2.0);
  EXPECT_TRUE(std::isnan(got[10]));  // not a number stays visible
  EXPECT_TRUE(std::isnan(got[13]));
  // A row without any possible token has no likelihood.
  sum.fill(0);
  loss_sum(device.gpu(), statistics.gpu().row_range(2, 1), sum.gpu());
  EXPECT_TRUE(std::isnan(sum.values()[0]));
}

INSTANTIATE_TEST_SUITE_P(DTypes, LossTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

TEST(LossTwins, LongRowsLoseNothingToTheSum) {
  // 49152 equal logits: nll is ln 49152. A sum in f32 would be off by 1e-5.
  constexpr int64_t V = 49152;
  TestDevice device;
  TwinTensor logits(device, {1, V}, DType::bf16), targets(device, {1}, DType::i32),
      statistics(device, {1, 3}, DType::f32), sum(device, {1}, DType::f64);
  logits.fill(-3.3), targets.set(std::vector<int32_t>{77}), sum.fill(0);
  loss_statistics(device.gpu(), logits.gpu(), targets.gpu(), 0, statistics.gpu());
  loss_sum(device.gpu(), statistics.gpu(), sum.gpu());
  EXPECT_NEAR(sum.values()[0], std::log(49152.0), 1e-12);
  // Unequal logits: what is left are the errors of a GPU's short exp(), not those of 49152 additions.
  logits.random(3);
  const std::vector<double> values = logits.values();
  loss_statistics(device.gpu(), logits.gpu(), targets.gpu(), 0, statistics.gpu());
  const std::vector<double> got = statistics.values();
  double expected = 0;
  for (double x : values) expected += std::exp(x - got[0]);
  EXPECT_NEAR(got[1], expected, 3e-7 * expected);
}

TEST(LossTwins, PartsCombineAndSumUp) {
  TestDevice device;
  for (const auto& [P, R] : {std::pair{1, 1}, {2, 5}, {5, 301}, {3, 1100}}) {
    TwinTensor parts(device, {P, R, 3}, DType::f32), statistics(device, {R, 3}, DType::f32, 2),
        sum(device, {1}, DType::f64);
    const Rng rng(9, 0);
    std::vector<double> values;
    for (int64_t i = 0; i < int64_t{P} * R; ++i) {
      const auto at = static_cast<uint64_t>(3 * i);
      const bool has_target = i / R == i % P;
      const bool is_empty = !has_target && i % 3 == 2;  // a part that sees no possible token
      values.push_back(is_empty ? -infinity : 10 * rng.normal(at));
      values.push_back(is_empty ? 0.0 : 1 + rng.uniform(at + 1));
      values.push_back(has_target ? rng.normal(at + 2) : -infinity);
    }
    parts.set(values), sum.fill(0.5), statistics.fill(0);
    loss_combine(device.cpu(), parts.cpu(), statistics.cpu());
    loss_combine(device.gpu(), parts.gpu(), statistics.gpu());
    EXPECT_TRUE(statistics.agrees(roundings(DType::f32, 0, 2))) << P;
    loss_sum(device.cpu(), statistics.cpu(), sum.cpu());
    loss_sum(device.gpu(), statistics.gpu(), sum.gpu());
    EXPECT_TRUE(sum.agrees({.relative = 1e-7})) << P;
    EXPECT_TRUE(parts.same_bits());
  }
}

TEST(LossTwins, TheOrderOfThreadsDoesNotChangeABit) {
  TestDevice device;
  std::vector<double> first;
  for (uint64_t seed : {1, 2, 3}) {
    shuffle_order(seed);
    Logits logits(device, {3, 9001, 0, 0, 4}, DType::bf16);
    TwinTensor targets(device, {3}, DType::i32), statistics(device, {3, 3}, DType::f32),
        sum(device, {1}, DType::f64);
    targets.set(std::vector<int32_t>{1, 2, 3}), sum.fill(0);
    loss_statistics(device.gpu(), logits.narrow.gpu(), targets.gpu(), 0, statistics.gpu());
    loss_sum(device.gpu(), statistics.gpu(), sum.gpu());
    std::vector<double> values = statistics.values();
    values.push_back(sum.values()[0]);
    if (seed == 1) first = values;
    EXPECT_EQ(first, values);
  }
}

}  // namespace
}  // namespace ptrain
