// AdamW against its formula in f64, over several updates.
#include "kernels/ops/adamw.h"

#include <gtest/gtest.h>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

template <class T>
class AdamW : public testing::Test {};
using Floats = testing::Types<float, double>;
TYPED_TEST_SUITE(AdamW, Floats);

TYPED_TEST(AdamW, FollowsTheFormulaOverSeveralUpdates) {
  using T = TypeParam;
  for (int64_t count : {1, 17, 1025, 40001}) {
    for (double decay : {0.0, 0.1}) {
      Guarded<T> w(1, count), g(1, count), m(1, count), v(1, count);
      w.random(1), m.fill(0), v.fill(0);
      std::vector<double> weight = w.values(), first(weight.size()), second(weight.size());
      AdamWStep step;
      step.learning_rate = 3e-2, step.weight_decay = decay, step.gradient_scale = 0.25;
      Context context = cpu_context(2);
      for (step.update = 1; step.update <= 4; ++step.update) {
        g.random(static_cast<uint64_t>(10 + step.update));
        adamw(context, step, w.view(), g.view(), m.view(), v.view());
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
  Context context = cpu_context();
  adamw(context, step, w.view(), g.view(), m.view(), v.view());
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
    Context context = cpu_context(threads);
    // A shard of an optimizer that is cut over ranks must give the bits of the whole.
    for (int64_t begin : {int64_t{0}, int64_t{12345}}) {
      const int64_t length = begin == 0 ? 12345 : count - 12345;
      const auto part = [&](Guarded<T>& x) { return x.view().column_range(begin, length); };
      if (threads == 2) adamw(context, step, part(w), part(g), part(m), part(v));
    }
    if (threads != 2) adamw(context, step, w.view(), g.view(), m.view(), v.view());
    if (threads == 1) first = w.values();
    EXPECT_TRUE(same_bits(first, w.values()));
  }
}

}  // namespace
}  // namespace ptrain
