// GELU against its formulas in f64, and its gradients against central differences.
#include "kernels/ops/gelu.h"

#include <gtest/gtest.h>

#include <numbers>

#include "kernels/ops/normal_tail.h"
#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

constexpr Gelu kinds[] = {Gelu::erf, Gelu::tanh};

/// y and dy/dx as the papers write them.
struct Point {
  double y, slope;
};
Point point_of(double x, Gelu kind) {
  if (kind == Gelu::erf) {
    const double gate = 0.5 * std::erfc(-x / std::numbers::sqrt2);
    return {x * gate, gate + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi)};
  }
  const double factor = std::sqrt(2 / std::numbers::pi), t = std::tanh(factor * (x + 0.044715 * x * x * x));
  return {0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * factor * (1 + 3 * 0.044715 * x * x)};
}

template <class T>
class GeluOf : public testing::Test {};
TYPED_TEST_SUITE(GeluOf, Storages);

TYPED_TEST(GeluOf, ForwardAndBackwardFollowTheFormula) {
  using T = TypeParam;
  for (Gelu kind : kinds) {
    for (int64_t N : {1, 3, 67}) {
      for (int64_t F : {1, 17, 300}) {
        for (int64_t gap : {0, 3}) {
          Guarded<T> x(N, F, gap), y(N, F, gap), dy(N, F, gap), dx(N, F, gap);
          x.random(1, 3), dy.random(2);
          std::vector<double> out, gradient;
          for (int64_t n = 0; n < N; ++n) {
            for (int64_t f = 0; f < F; ++f) {
              const Point point = point_of(x(n, f), kind);
              out.push_back(point.y), gradient.push_back(dy(n, f) * point.slope);
            }
          }
          Context context = cpu_context(2);
          gelu_forward(context, x.view(), y.view(), kind);
          gelu_backward(context, x.view(), dy.view(), dx.view(), kind);
          EXPECT_TRUE(close(y.values(), out, tolerance::elementwise<T>));
          EXPECT_TRUE(close(dx.values(), gradient, tolerance::elementwise<T>));
          EXPECT_TRUE(y.intact() && dx.intact());
        }
      }
    }
  }
}

TYPED_TEST(GeluOf, OutputsMayLieOverInputs) {
  using T = TypeParam;
  for (Gelu kind : kinds) {
    Guarded<T> x(7, 33), y(7, 33), dy(7, 33), dx(7, 33), over_dy(7, 33);
    x.random(1, 3), dy.random(2), over_dy.random(2);
    Context context = cpu_context();
    gelu_forward(context, x.view(), y.view(), kind);
    gelu_backward(context, x.view(), dy.view(), dx.view(), kind);
    gelu_backward(context, x.view(), over_dy.view(), over_dy.view(), kind);
    EXPECT_TRUE(same_bits(over_dy.values(), dx.values()));
    gelu_backward(context, x.view(), dy.view(), x.view(), kind);
    EXPECT_TRUE(same_bits(x.values(), dx.values()));
    x.random(1, 3);
    gelu_forward(context, x.view(), x.view(), kind);
    EXPECT_TRUE(same_bits(x.values(), y.values()));
  }
}

TYPED_TEST(GeluOf, FarFromZeroIsTheIdentityOrNothing) {
  using T = TypeParam;
  const double infinity = std::numeric_limits<double>::infinity();
  const double most = std::is_same_v<T, Float16> ? 60000.0 : 1e38;
  for (Gelu kind : kinds) {
    for (double size : {20.0, 200.0, 3000.0, most, infinity}) {
      Guarded<T> x(1, 2), y(1, 2), dy(1, 2), dx(1, 2);
      x.at(0, 0) = cpu::convert<T>(size), x.at(0, 1) = cpu::convert<T>(-size), dy.fill(1);
      Context context = cpu_context();
      gelu_forward(context, x.view(), y.view(), kind);
      gelu_backward(context, x.view(), dy.view(), dx.view(), kind);
      EXPECT_EQ(y(0, 0), x(0, 0)) << size;
      EXPECT_NEAR(y(0, 1), 0, 1e-30) << size;
      EXPECT_EQ(dx(0, 0), 1) << size;
      EXPECT_NEAR(dx(0, 1), 0, 1e-30) << size;
    }
  }
}

TYPED_TEST(GeluOf, NoNumberStaysNoNumber) {
  using T = TypeParam;
  for (Gelu kind : kinds) {
    Guarded<T> x(1, 9), y(1, 9), dy(1, 9), dx(1, 9);
    dy.fill(1);  // x: NaN from the start
    Context context = cpu_context();
    gelu_forward(context, x.view(), y.view(), kind);
    gelu_backward(context, x.view(), dy.view(), dx.view(), kind);
    for (double value : y.values()) EXPECT_TRUE(std::isnan(value));
    for (double value : dx.values()) EXPECT_TRUE(std::isnan(value));
  }
}

TEST(GeluGradient, MatchesCentralDifferences) {
  for (Gelu kind : kinds) {
    Guarded<double> x(3, 17), y(3, 17), dy(3, 17), dx(3, 17);
    x.random(1, 2), dy.random(2);
    Context context = cpu_context();
    gelu_backward(context, x.view(), dy.view(), dx.view(), kind);
    const auto loss = [&] {
      gelu_forward(context, x.view(), y.view(), kind);
      return weighted_sum(y, dy);
    };
    EXPECT_TRUE(gradient_matches(loss, x.span(), dx.values()));
  }
}

TYPED_TEST(GeluOf, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  for (Gelu kind : kinds) {
    Guarded<T> x(101, 301), dy(101, 301);
    x.random(1, 3), dy.random(2);
    std::vector<double> first;
    for (int threads : {1, 2, 3}) {
      Guarded<T> y(101, 301), dx(101, 301);
      Context context = cpu_context(threads);
      gelu_forward(context, x.view(), y.view(), kind);
      gelu_backward(context, x.view(), dy.view(), dx.view(), kind);
      std::vector<double> all = y.values(), more = dx.values();
      all.insert(all.end(), more.begin(), more.end());
      if (threads == 1) first = all;
      EXPECT_TRUE(same_bits(first, all));
    }
  }
}

TEST(NormalTail, IsWithinItsErrorOfErfcOnTheWholeRange) {
  for (int i = 0; i <= 16000; ++i) {
    const float x = static_cast<float>(i) / 1000;
    const double wide = x, expected = 0.5 * std::erfc(wide / std::numbers::sqrt2) * std::exp(wide * wide / 2);
    const double found = normal_tail(1 / (1 + tail_slope * x));
    ASSERT_NEAR(found / expected, 1, 4e-7) << x;
  }
}

TEST(GeluDispatch, NamesTheOperandThatDoesNotFit) {
  Guarded<float> x(2, 3), y(2, 4);
  Context context = cpu_context();
  try {
    gelu_forward(context, x.view(), y.view(), Gelu::erf);
    FAIL() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "gelu_forward: x is (2, 3), expected (2, 4)");
  }
}

}  // namespace
}  // namespace ptrain
