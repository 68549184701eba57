// The optimizer's kernels beside their CPU twins, over every kind of weight, gradient and master.
#include "kernels/ops/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/ops/elementwise.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                 inf = std::numeric_limits<double>::infinity();

/// The tensors of an update. `shift`: elements before the first one, so that addresses are odd.
struct Update {
  TwinTensor weight, master, gradient, m, v, scale;
  int64_t begin, count;
  bool has_master;

  Update(TestDevice& device, int64_t count, int64_t shift, DType weight_dtype, DType gradient_dtype,
         DType master_dtype, bool has_master)
      : weight(device, {count + shift}, weight_dtype),
        master(device, {count + shift}, master_dtype),
        gradient(device, {count + shift}, gradient_dtype),
        m(device, {count + shift}, DType::f32),
        v(device, {count + shift}, DType::f32),
        scale(device, {1}, DType::f64),
        begin(shift),
        count(count),
        has_master(has_master) {
    weight.random(1), gradient.random(2), m.random(3, 0.3), v.fill(0.2), scale.fill(0.25);
  }

  void run_on(Context& context, const AdamWStep& step) {
    const bool is_cpu = context.device.kind == DeviceKind::cpu;
    const auto part = [&](TwinTensor& x) {
      return (is_cpu ? x.cpu() : x.gpu()).column_range(begin, count).reshaped({count});
    };
    adamw(context, step, is_cpu ? scale.cpu() : scale.gpu(), part(weight),
          has_master ? part(master) : Tensor{}, part(gradient), part(m), part(v));
  }
};

AdamWStep step_of(int64_t update) {
  return {.learning_rate = 3e-2, .weight_decay = 0.1, .update = update, .seed = 77};
}

/// Vectors with a rest, single elements at odd addresses, less than one vector, more than one block.
const std::pair<int64_t, int64_t> sizes[] = {{1, 0}, {3, 0}, {4, 4}, {1027, 0}, {1030, 1}, {4099, 2}};

TEST(AdamWTwins, FloatWeightsAgreeOverSeveralUpdates) {
  TestDevice device;
  for (const auto& [count, shift] : sizes) {
    Update u(device, count, shift, DType::f32, DType::f32, DType::f32, false);
    for (int64_t update = 1; update <= 3; ++update) {
      u.run_on(device.cpu(), step_of(update));
      u.run_on(device.gpu(), step_of(update));
    }
    EXPECT_TRUE(u.weight.agrees(roundings(DType::f32, 1, 8)));
    EXPECT_TRUE(u.m.agrees(roundings(DType::f32)));
    EXPECT_TRUE(u.v.agrees(roundings(DType::f32)));
    EXPECT_TRUE(u.gradient.same_bits() && u.scale.same_bits());
  }
}

class HalfAdamWTwins : public testing::TestWithParam<std::pair<DType, DType>> {};

TEST_P(HalfAdamWTwins, AnF32MasterIsUpdatedAndItsNearestWeightWritten) {
  const auto& [dtype, gradient_dtype] = GetParam();
  TestDevice device;
  for (const auto& [count, shift] : sizes) {
    Update u(device, count, shift, dtype, gradient_dtype, DType::f32, true);
    u.master.random(5);
    // Beside it f32 weights, on the CPU: they begin where the master does.
    Update wide(device, count, shift, DType::f32, DType::f32, DType::f32, false);
    copy(device.cpu(), u.master.cpu(), wide.weight.cpu());
    copy(device.cpu(), u.gradient.cpu(), wide.gradient.cpu());
    wide.run_on(device.cpu(), step_of(2));
    copy(device.cpu(), wide.weight.cpu(), u.master.cpu());
    copy(device.cpu(), wide.m.cpu(), u.m.cpu());
    u.run_on(device.gpu(), step_of(2));
    EXPECT_TRUE(u.master.agrees(roundings(DType::f32)));
    EXPECT_TRUE(u.m.agrees(roundings(DType::f32)));
    const std::vector<double> weight = u.weight.values(), master = u.master.values();
    TwinTensor nearest(device, {count + shift}, dtype);
    nearest.set(master);
    const std::vector<double> expected = nearest.values();
    for (size_t i = static_cast<size_t>(shift); i < weight.size(); ++i)
      EXPECT_EQ(weight[i], expected[i]) << i;
  }
}

TEST_P(HalfAdamWTwins, AWeightThatIsItsOwnMasterIsRoundedToOneOfItsNeighbours) {
  const auto& [dtype, gradient_dtype] = GetParam();
  TestDevice device;
  constexpr int64_t count = 4099;
  Update u(device, count, 0, dtype, gradient_dtype, DType::f32, false);
  u.weight.fill(1), u.m.fill(0), u.gradient.fill(1);
  // Much less than a step of either dtype: m and v of a first update, without their bias.
  AdamWStep step{.learning_rate = 1e-4, .update = 1, .seed = 5};
  const double v = 0.95 * 0.2 + 0.05 * 0.25 * 0.25;
  const double expected = 1e-4 * 0.25 / std::sqrt(v / 0.05);
  u.run_on(device.gpu(), step);
  const double gap = dtype == DType::bf16 ? 0x1p-8 : 0x1p-11, chance = expected / gap;
  double moved = 0;
  const std::vector<double> first = u.weight.values();
  for (double w : first) {
    EXPECT_TRUE(w == 1 || w == 1 - gap) << w;
    moved += 1 - w;
  }
  // The mean moves as far as it should: a binomial of 4099 draws, four standard deviations.
  EXPECT_NEAR(moved / count, expected, 4 * gap * std::sqrt(chance * (1 - chance) / count));
  EXPECT_GT(moved, 0);
  // Another seed draws others.
  u.weight.fill(1), u.m.fill(0), u.v.fill(0.2);
  step.seed = 6;
  u.run_on(device.gpu(), step);
  EXPECT_NE(first, u.weight.values());
}

TEST_P(HalfAdamWTwins, TheRoundingIsThatOfTheCpu) {
  const auto& [dtype, gradient_dtype] = GetParam();
  TestDevice device;
  for (const auto& [count, shift] : sizes) {
    Update u(device, count, shift, dtype, gradient_dtype, DType::f32, false);
    u.run_on(device.cpu(), step_of(3));
    u.run_on(device.gpu(), step_of(3));
    // The same draw: another neighbour only where the f32 values differ by a rounding just there.
    EXPECT_TRUE(u.weight.agrees(roundings(dtype, 1e-3, 2.1)));
    const std::vector<double> on_device = u.weight.values();
    TwinTensor expected(device, {count + shift}, DType::f64);
    copy(device.cpu(), u.weight.cpu(), expected.cpu());
    int64_t others = 0;
    for (size_t i = 0; i < on_device.size(); ++i) others += on_device[i] != expected.cpu().as<double>()[i];
    EXPECT_LE(others, count / 200) << count;
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, HalfAdamWTwins,
                         testing::Values(std::pair{DType::bf16, DType::bf16},
                                         std::pair{DType::bf16, DType::f32},
                                         std::pair{DType::f16, DType::f16},
                                         std::pair{DType::f16, DType::f32}));

TEST(AdamWTwins, LowBitsBesideTheWeightAreAnF32MasterToTheLastBit) {
  TestDevice device;
  for (DType gradient_dtype : {DType::bf16, DType::f32}) {
    for (const auto& [count, shift] : sizes) {
      Update whole(device, count, shift, DType::bf16, gradient_dtype, DType::f32, true);
      Update split(device, count, shift, DType::bf16, gradient_dtype, DType::i16, true);
      TwinTensor joined(device, {count + shift}, DType::f32);
      whole.master.random(5);
      split_master(device.gpu(), whole.master.gpu(), split.weight.gpu(), split.master.gpu());
      for (int64_t update = 1; update <= 3; ++update) {
        whole.run_on(device.gpu(), step_of(update));
        split.run_on(device.gpu(), step_of(update));
      }
      join_master(device.gpu(), split.weight.gpu(), split.master.gpu(), joined.gpu());
      EXPECT_EQ(whole.master.values(), joined.values()) << count;
      EXPECT_EQ(whole.m.values(), split.m.values()) << count;
      EXPECT_EQ(whole.v.values(), split.v.values()) << count;
      EXPECT_NE(whole.master.values(), whole.weight.values());
    }
  }
}

TEST(AdamWTwins, SplittingAndJoiningHaveTheBitsOfTheCpu) {
  TestDevice device;
  for (int64_t count : {1, 7, 1024, 1027}) {
    TwinTensor wide(device, {count}, DType::f32), weight(device, {count}, DType::bf16),
        low(device, {count}, DType::i16), again(device, {count}, DType::f32);
    wide.random(1, 1e-3);
    split_master(device.cpu(), wide.cpu(), weight.cpu(), low.cpu());
    split_master(device.gpu(), wide.gpu(), weight.gpu(), low.gpu());
    EXPECT_TRUE(weight.same_bits() && low.same_bits() && wide.same_bits()) << count;
    join_master(device.cpu(), weight.cpu(), low.cpu(), again.cpu());
    join_master(device.gpu(), weight.gpu(), low.gpu(), again.gpu());
    EXPECT_TRUE(again.same_bits()) << count;
    EXPECT_EQ(again.values(), wide.values());
    join_master(device.cpu(), weight.cpu(), {}, again.cpu());
    join_master(device.gpu(), weight.gpu(), {}, again.gpu());
    EXPECT_TRUE(again.same_bits()) << count;
    split_master(device.gpu(), wide.gpu(), weight.gpu(), {});
    EXPECT_TRUE(weight.same_bits()) << count;
  }
}

TEST(AdamWTwins, AScaleThatIsNoNumberChangesNothing) {
  TestDevice device;
  for (DType master : {DType::f32, DType::i16}) {
    Update u(device, 1027, 0, DType::bf16, DType::bf16, master, true);
    u.scale.fill(nan);
    if (master == DType::f32) u.master.random(5);
    u.run_on(device.gpu(), step_of(1));
    EXPECT_TRUE(u.weight.same_bits() && u.master.same_bits() && u.m.same_bits() && u.v.same_bits());
  }
}

TEST(GradientScaleTwins, ClipsUnscalesAndRefusesWhatIsNotFinite) {
  struct Case {
    double loss, squares, clip, loss_scale;
  };
  TestDevice device;
  for (const Case& c : {Case{1, 16, 0, 1},
                        {1, 16, 8, 1},
                        {1, 16, 1, 1},
                        {1, 16, 1, 2},
                        {1, 16, 0, 4},
                        {1, 0, 1, 1},
                        {nan, 16, 0, 1},
                        {1, inf, 1, 1},
                        {inf, 1, 1, 1},
                        {1, nan, 1, 1},
                        {1, 1e60, 1, 1},
                        {1, 1e34, 0, 1},
                        {1, 16, 0, 65536}}) {
    TwinTensor sums(device, {2}, DType::f64), scale(device, {1}, DType::f64);
    sums.set(std::vector<double>{c.loss, c.squares}), scale.fill(7);
    gradient_scale(device.cpu(), sums.cpu(), c.clip, c.loss_scale, scale.cpu());
    gradient_scale(device.gpu(), sums.gpu(), c.clip, c.loss_scale, scale.gpu());
    EXPECT_TRUE(scale.agrees({.relative = 1e-15})) << c.loss << " " << c.squares;
  }
}

}  // namespace
}  // namespace ptrain
