// AdamW against its formula in f64, over several updates.
#include "kernels/ops/adamw.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

Tensor number(double& value) {
  return Tensor(&value, {1}, DType::f64);
}

template <class T>
class AdamW : public testing::Test {};
using Floats = testing::Types<float, double>;
TYPED_TEST_SUITE(AdamW, Floats);

/// Weights of 16 bits, whose masters and roundings are tested below.
template <class T>
class AdamWNarrow : public testing::Test {};
TYPED_TEST_SUITE(AdamWNarrow, NarrowStorages);

TYPED_TEST(AdamW, FollowsTheFormulaOverSeveralUpdates) {
  using T = TypeParam;
  for (int64_t count : {1, 17, 1025, 40001}) {
    for (double decay : {0.0, 0.1}) {
      Guarded<T> w(1, count), g(1, count), m(1, count), v(1, count);
      w.random(1), m.fill(0), v.fill(0);
      std::vector<double> weight = w.values(), first(weight.size()), second(weight.size());
      AdamWStep step;
      double factor = 0.25;
      step.learning_rate = 3e-2, step.weight_decay = decay;
      Context context = cpu_context(2);
      for (step.update = 1; step.update <= 4; ++step.update) {
        g.random(static_cast<uint64_t>(10 + step.update));
        adamw(context, step, number(factor), w.view(), {}, g.view(), m.view(), v.view());
        const double bias1 = 1 - std::pow(step.beta1, static_cast<double>(step.update));
        const double bias2 = 1 - std::pow(step.beta2, static_cast<double>(step.update));
        for (int64_t i = 0; i < count; ++i) {
          const size_t at = static_cast<size_t>(i);
          const double gradient = g(0, i) * 0.25;
          first[at] = step.beta1 * first[at] + (1 - step.beta1) * gradient;
          second[at] = step.beta2 * second[at] + (1 - step.beta2) * gradient * gradient;
          weight[at] =
              weight[at] * (1 - step.learning_rate * decay) -
              step.learning_rate * (first[at] / bias1) / (std::sqrt(second[at] / bias2) + step.epsilon);
        }
      }
      EXPECT_TRUE(close(w.values(), weight, tolerance::elementwise<T>));
      EXPECT_TRUE(close(m.values(), first, tolerance::elementwise<T>));
      EXPECT_TRUE(close(v.values(), second, tolerance::elementwise<T>));
      EXPECT_TRUE(w.intact() && m.intact() && v.intact());
    }
  }
}

TYPED_TEST(AdamW, AZeroGradientOnlyDecays) {
  using T = TypeParam;
  Guarded<T> w(1, 9), g(1, 9), m(1, 9), v(1, 9);
  w.fill(2), g.fill(0), m.fill(0), v.fill(0);
  AdamWStep step;
  step.learning_rate = 0.5, step.weight_decay = 0.5;
  double factor = 1;
  Context context = cpu_context();
  adamw(context, step, number(factor), w.view(), {}, g.view(), m.view(), v.view());
  EXPECT_EQ(w(0, 8), 1.5);
}

TYPED_TEST(AdamW, ThreadsAndCutsDoNotChangeABit) {
  using T = TypeParam;
  constexpr int64_t count = 50001;
  std::vector<double> first;
  for (int threads : {1, 2, 3}) {
    Guarded<T> w(1, count), g(1, count), m(1, count), v(1, count);
    w.random(1), g.random(2), m.random(3), v.fill(0.3);
    AdamWStep step;
    step.learning_rate = 1e-2, step.update = 3;
    double factor = 1;
    Context context = cpu_context(threads);
    // A shard of an optimizer that is cut over ranks must give the bits of the whole.
    for (int64_t begin : {int64_t{0}, int64_t{12345}}) {
      const int64_t length = begin == 0 ? 12345 : count - 12345;
      const auto part = [&](Guarded<T>& x) { return x.view().column_range(begin, length); };
      if (threads == 2) adamw(context, step, number(factor), part(w), {}, part(g), part(m), part(v));
    }
    if (threads != 2) adamw(context, step, number(factor), w.view(), {}, g.view(), m.view(), v.view());
    if (threads == 1) first = w.values();
    EXPECT_TRUE(same_bits(first, w.values()));
  }
}

TYPED_TEST(AdamW, AScaleThatIsNoNumberChangesNothing) {
  using T = TypeParam;
  Guarded<T> w(1, 9), g(1, 9), m(1, 9), v(1, 9);
  w.random(1), g.random(2), m.random(3), v.fill(0.5);
  const std::vector<double> before[] = {w.values(), m.values(), v.values()};
  double factor = std::numeric_limits<double>::quiet_NaN();
  Context context = cpu_context();
  adamw(context, {.learning_rate = 1, .weight_decay = 1}, number(factor), w.view(), {}, g.view(), m.view(),
        v.view());
  EXPECT_TRUE(same_bits(before[0], w.values()) && same_bits(before[1], m.values()) &&
              same_bits(before[2], v.values()));
}

/// Weights, gradients and moments of one call; gradients of 16 bits or f32.
template <class S, class G>
struct NarrowStep {
  explicit NarrowStep(int64_t count) : weight(1, count), gradient(1, count), m(1, count), v(1, count) {
    weight.random(1), gradient.random(2), m.fill(0), v.fill(0);
  }
  void update(int threads, const AdamWStep& step, Tensor master) {
    double factor = 0.25;
    Context context = cpu_context(threads);
    adamw(context, step, number(factor), weight.view(), master, gradient.view(), m.view(), v.view());
  }

  Guarded<S> weight;
  Guarded<G> gradient;
  Guarded<float> m, v;
};

template <class S, class G>
void expect_updates_of_f32(int64_t count) {
  NarrowStep<S, G> x(count);
  Guarded<float> master(1, count), w(1, count), g(1, count), m(1, count), v(1, count);
  m.fill(0), v.fill(0);
  for (int64_t i = 0; i < count; ++i) {
    master.at(0, i) = w.at(0, i) = static_cast<float>(x.weight(0, i));
    g.at(0, i) = static_cast<float>(x.gradient(0, i));
  }
  AdamWStep step{.learning_rate = 1e-3, .weight_decay = 0.1};
  double factor = 0.25;
  Context context = cpu_context();
  for (step.update = 1; step.update <= 5; ++step.update) {
    x.update(2, step, master.view());
    adamw(context, step, number(factor), w.view(), {}, g.view(), m.view(), v.view());
  }
  EXPECT_TRUE(same_bits(master.values(), w.values()));
  EXPECT_TRUE(same_bits(x.m.values(), m.values()) && same_bits(x.v.values(), v.values()));
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(x.weight(0, i), rounded<S>(w(0, i)));
  EXPECT_TRUE(x.weight.intact() && master.intact() && x.m.intact() && x.v.intact());
}

TYPED_TEST(AdamWNarrow, AnF32MasterTakesTheUpdatesOfF32AndTheWeightFollows) {
  for (int64_t count : {1, 1025, 40001}) {
    expect_updates_of_f32<TypeParam, TypeParam>(count);
    expect_updates_of_f32<TypeParam, float>(count);
  }
}

TEST(AdamWSplitMaster, HasTheBitsOfAnF32Master) {
  for (int64_t count : {1, 1025, 40001}) {
    NarrowStep<BFloat16, float> x(count), y(count);
    Guarded<float> master(1, count);
    std::vector<int16_t> low(static_cast<size_t>(count));
    std::vector<float> joined(static_cast<size_t>(count));
    master.random(1);
    Context context = cpu_context(2);
    const Tensor rest(low.data(), {count}, DType::i16), wide(joined.data(), {count}, DType::f32);
    split_master(context, master.view(), x.weight.view(), rest);
    AdamWStep step{.learning_rate = 1e-4, .weight_decay = 0.1};
    for (step.update = 1; step.update <= 20; ++step.update) {
      x.update(2, step, rest);
      y.update(1, step, master.view());
    }
    join_master(context, x.weight.view(), rest, wide);
    EXPECT_TRUE(same_bits(std::vector<double>(joined.begin(), joined.end()), master.values()));
    EXPECT_TRUE(same_bits(x.m.values(), y.m.values()) && same_bits(x.v.values(), y.v.values()));
  }
}

TYPED_TEST(AdamWNarrow, AWeightWithoutMasterIsRoundedByChanceWithTheRightMean) {
  using S = TypeParam;
  constexpr int64_t count = 2000, seeds = 400;
  NarrowStep<float, float> exact(count);
  NarrowStep<S, S> start(count);
  for (int64_t i = 0; i < count; ++i) {
    exact.weight.at(0, i) = static_cast<float>(start.weight(0, i));
    exact.gradient.at(0, i) = static_cast<float>(start.gradient(0, i));
  }
  AdamWStep step{.learning_rate = 1e-4, .weight_decay = 0.1};
  exact.update(1, step, {});
  std::vector<double> mean(count);
  int64_t ups = 0, downs = 0;
  for (int64_t seed = 0; seed < seeds; ++seed) {
    NarrowStep<S, S> x(count);
    step.seed = static_cast<uint64_t>(seed);
    x.update(1, step, {});
    for (int64_t i = 0; i < count; ++i) {
      const double target = exact.weight(0, i), value = x.weight(0, i);
      // One of the two neighbours.
      ASSERT_LE(std::fabs(value - target), tolerance::unit<S> * std::max(std::fabs(target), 6e-5));
      mean[static_cast<size_t>(i)] += value / static_cast<double>(seeds);
      ups += value > target, downs += value < target;
    }
  }
  EXPECT_GT(ups, 0);
  EXPECT_GT(downs, 0);
  // A rounding up or down by chance has at most half a step of deviation; the mean of n of them 1 / sqrt(n)
  // of that. Five deviations leave room for the largest of 2000 means; over all of them the bias vanishes.
  double bias = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double target = exact.weight(0, i);
    const double spacing = tolerance::unit<S> * std::max(std::fabs(target), 6e-5);
    const double error = (mean[static_cast<size_t>(i)] - target) / spacing;
    EXPECT_LE(std::fabs(error), 5 * 0.5 / std::sqrt(static_cast<double>(seeds)));
    bias += error / static_cast<double>(count);
  }
  EXPECT_LE(std::fabs(bias), 5 * 0.5 / std::sqrt(static_cast<double>(seeds * count)));
}

TYPED_TEST(AdamWNarrow, RoundingByChanceIsTheSameForTheSameSeedAndAnyThreads) {
  using S = TypeParam;
  constexpr int64_t count = 50001;
  std::vector<double> first;
  for (int threads : {1, 2, 3}) {
    NarrowStep<S, float> x(count), other(count);
    x.update(threads, {.learning_rate = 1e-4, .seed = 7}, {});
    other.update(threads, {.learning_rate = 1e-4, .seed = 8}, {});
    if (threads == 1) first = x.weight.values();
    EXPECT_TRUE(same_bits(first, x.weight.values()));
    EXPECT_FALSE(same_bits(first, other.weight.values()));
  }
}

TEST(GradientScale, ClipsUnscalesAndRefusesWhatIsNotFinite) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                   inf = std::numeric_limits<double>::infinity();
  struct Case {
    double loss, squares, clip, loss_scale, expected;
  };
  for (const Case& c :
       {Case{1, 16, 0, 1, 1}, Case{1, 16, 8, 1, 1}, Case{1, 16, 1, 1, 1 / (4 + 1e-6)},
        Case{1, 16, 1, 2, 1 / (2 + 1e-6) / 2}, Case{1, 16, 0, 4, 0.25}, Case{1, 0, 1, 1, 1},
        Case{nan, 16, 0, 1, nan}, Case{1, inf, 1, 1, nan}, Case{inf, 1, 1, 1, nan}, Case{1, nan, 1, 1, nan},
        Case{1, 1e60, 1, 1, nan}, Case{1, 1e60, 1, 0x1p60, 1 / (1e30 / 0x1p60 + 1e-6) / 0x1p60},
        Case{1, 1e34, 0, 1, 1}}) {
    double sums[2] = {c.loss, c.squares}, factor = 7;
    Context context = cpu_context();
    gradient_scale(context, Tensor(sums, {2}, DType::f64), c.clip, c.loss_scale, number(factor));
    if (std::isnan(c.expected)) {
      EXPECT_TRUE(std::isnan(factor));
    } else {
      EXPECT_DOUBLE_EQ(factor, c.expected);
    }
  }
}

TEST(SplitMaster, IsTheNearestWeightAndLosesNoBit) {
  std::vector<float> wide = {0.f,    -0.f,     1.f,       -1.00390625f, 3.1415927f,
                             1e-40f, -65504.f, 0x1.01p0f, 0x1.03p0f};
  for (uint32_t i = 0; i < 1000; ++i) wide.push_back(std::bit_cast<float>(i * 2654435761u & 0xbfffffffu));
  const auto count = static_cast<int64_t>(wide.size());
  std::vector<uint16_t> weight(wide.size());
  std::vector<int16_t> low(wide.size());
  std::vector<float> joined(wide.size()), alone(wide.size());
  Context context = cpu_context(2);
  const Tensor w(weight.data(), {count}, DType::bf16), l(low.data(), {count}, DType::i16);
  split_master(context, Tensor(wide.data(), {count}, DType::f32), w, l);
  join_master(context, w, l, Tensor(joined.data(), {count}, DType::f32));
  join_master(context, w, {}, Tensor(alone.data(), {count}, DType::f32));
  for (size_t i = 0; i < wide.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(joined[i]), std::bit_cast<uint32_t>(wide[i]));
    const float step = std::bit_cast<float>((std::bit_cast<uint32_t>(alone[i]) & 0x7fff0000u) + 0x10000u) -
                       std::fabs(alone[i]);
    EXPECT_LE(std::fabs(alone[i] - wide[i]), step / 2) << wide[i];
  }
}

}  // namespace
}  // namespace ptrain
