// SwiGLU against its formula in f64, and its gradient against central differences.
#include "kernels/ops/activation.h"

#include <gtest/gtest.h>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

template <class T>
class SwiGlu : public testing::Test {};
TYPED_TEST_SUITE(SwiGlu, Storages);

TYPED_TEST(SwiGlu, ForwardAndBackwardFollowTheFormula) {
  using T = TypeParam;
  for (int64_t N : {1, 3, 67}) {
    for (int64_t F : {1, 17, 300}) {
      for (int64_t gap : {0, 3}) {
        Guarded<T> gate_up(N, 2 * F, gap), y(N, F, gap), dy(N, F, gap), dgate_up(N, 2 * F, gap),
            again(N, F, gap);
        gate_up.random(1, 3), dy.random(2);
        std::vector<double> out, gradient(static_cast<size_t>(N * 2 * F));
        for (int64_t n = 0; n < N; ++n) {
          for (int64_t f = 0; f < F; ++f) {
            const double gate = gate_up(n, f), up = gate_up(n, F + f), s = 1 / (1 + std::exp(-gate));
            out.push_back(gate * s * up);
            gradient[static_cast<size_t>(n * 2 * F + f)] = dy(n, f) * up * s * (1 + gate * (1 - s));
            gradient[static_cast<size_t>(n * 2 * F + F + f)] = dy(n, f) * gate * s;
          }
        }
        Context context = cpu_context(2);
        swiglu_forward(context, gate_up.view(), y.view());
        swiglu_backward(context, gate_up.view(), dy.view(), dgate_up.view(), again.view());
        EXPECT_TRUE(close(y.values(), out, tolerance::elementwise<T>));
        EXPECT_TRUE(close(dgate_up.values(), gradient, tolerance::elementwise<T>));
        EXPECT_TRUE(same_bits(again.values(), y.values()));
        EXPECT_TRUE(y.intact() && dgate_up.intact() && again.intact());
        swiglu_backward(context, gate_up.view(), dy.view(), gate_up.view(), again.view());
        EXPECT_TRUE(same_bits(gate_up.values(), dgate_up.values()));
        EXPECT_TRUE(same_bits(again.values(), y.values()));
      }
    }
  }
}

TYPED_TEST(SwiGlu, LargeGatesNeitherOverflowNorVanish) {
  using T = TypeParam;
  for (double gate : {-200.0, -90.0, -30.0, 30.0, 90.0, 200.0}) {
    Guarded<T> gate_up(1, 2), y(1, 1), dy(1, 1), dgate_up(1, 2);
    gate_up.at(0, 0) = cpu::convert<T>(gate), gate_up.at(0, 1) = cpu::convert<T>(1.0), dy.fill(1);
    Context context = cpu_context();
    swiglu_forward(context, gate_up.view(), y.view());
    swiglu_backward(context, gate_up.view(), dy.view(), dgate_up.view(), {});
    EXPECT_NEAR(y(0, 0), std::max(gate, 0.0), 1e-11) << gate;
    EXPECT_NEAR(dgate_up(0, 0), gate > 0 ? 1 : 0, 1e-11) << gate;
  }
}

TEST(SwiGluGradient, MatchesCentralDifferences) {
  Guarded<double> gate_up(3, 34), y(3, 17), dy(3, 17), dgate_up(3, 34);
  gate_up.random(1), dy.random(2);
  Context context = cpu_context();
  swiglu_backward(context, gate_up.view(), dy.view(), dgate_up.view(), {});
  const auto loss = [&] {
    swiglu_forward(context, gate_up.view(), y.view());
    return weighted_sum(y, dy);
  };
  EXPECT_TRUE(gradient_matches(loss, gate_up.span(), dgate_up.values()));
}

TYPED_TEST(SwiGlu, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  Guarded<T> gate_up(101, 2 * 301), dy(101, 301);
  gate_up.random(1), dy.random(2);
  std::vector<double> first;
  for (int threads : {1, 2, 3}) {
    Guarded<T> dgate_up(101, 2 * 301), y(101, 301);
    Context context = cpu_context(threads);
    swiglu_backward(context, gate_up.view(), dy.view(), dgate_up.view(), y.view());
    std::vector<double> all = dgate_up.values(), more = y.values();
    all.insert(all.end(), more.begin(), more.end());
    if (threads == 1) first = all;
    EXPECT_TRUE(same_bits(first, all));
  }
}

}  // namespace
}  // namespace ptrain
