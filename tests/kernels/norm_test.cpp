// RMSNorm against its formula in f64, and its gradient against central differences.
#include "kernels/ops/norm.h"

#include <gtest/gtest.h>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

constexpr double eps = 1e-5;

template <class T>
class RmsNorm : public testing::Test {};
TYPED_TEST_SUITE(RmsNorm, Storages);

TYPED_TEST(RmsNorm, ForwardDividesBySquareRootOfMeanSquare) {
  using T = TypeParam;
  for (int64_t N : {1, 7, 67}) {
    for (int64_t C : {1, 24, 65, 577}) {
      for (bool has_delta : {false, true}) {
        for (int64_t gap : {0, 3}) {
          Guarded<T> x(N, C, gap), delta(N, C, gap), w(1, C), sum(N, C, gap), y(N, C, gap);
          Guarded<cpu::Wide<T>> rstd(1, N);
          x.random(1), delta.random(2), w.random(3);
          std::vector<double> out, total, scale;
          for (int64_t n = 0; n < N; ++n) {
            double squares = 0;
            for (int64_t c = 0; c < C; ++c) {
              total.push_back(rounded<T>(x(n, c) + (has_delta ? delta(n, c) : 0)));
              squares += total.back() * total.back();
            }
            scale.push_back(1 / std::sqrt(squares / static_cast<double>(C) + eps));
            for (int64_t c = 0; c < C; ++c) {
              out.push_back(total[static_cast<size_t>(n * C + c)] * scale.back() * w(0, c));
            }
          }
          Context context = cpu_context(2);
          rmsnorm_forward(context, x.view(), has_delta ? delta.view() : Tensor(), w.view(Shape{C}),
                          has_delta ? sum.view() : Tensor(), y.view(), rstd.view(Shape{N}), eps);
          EXPECT_TRUE(close(y.values(), out, tolerance::elementwise<T>));
          EXPECT_TRUE(close(rstd.values(), scale, tolerance::elementwise<cpu::Wide<T>>));
          if (has_delta) {
            EXPECT_TRUE(close(sum.values(), total, tolerance::elementwise<T>));
          }
          EXPECT_TRUE(y.intact() && sum.intact() && rstd.intact());
        }
      }
    }
  }
}

TYPED_TEST(RmsNorm, SumMayLieOverX) {
  using T = TypeParam;
  Guarded<T> x(5, 33), delta(5, 33), w(1, 33), sum(5, 33), y(5, 33), again(5, 33);
  Guarded<cpu::Wide<T>> rstd(1, 5);
  x.random(1), delta.random(2), w.random(3);
  Context context = cpu_context();
  rmsnorm_forward(context, x.view(), delta.view(), w.view(Shape{33}), sum.view(), y.view(),
                  rstd.view(Shape{5}), eps);
  rmsnorm_forward(context, x.view(), delta.view(), w.view(Shape{33}), x.view(), again.view(),
                  rstd.view(Shape{5}), eps);
  EXPECT_TRUE(same_bits(sum.values(), x.values()));
  EXPECT_TRUE(same_bits(y.values(), again.values()));
}

TEST(RmsNormGradient, MatchesCentralDifferences) {
  constexpr int64_t N = 5, C = 37;
  Guarded<double> x(N, C), w(1, C), y(N, C), rstd(1, N), dy(N, C), residual(N, C), dx(N, C), dw(1, C);
  x.random(1), w.random(2), dy.random(3), residual.random(4), dw.fill(0);
  Context context = cpu_context();
  const auto loss = [&] {
    rmsnorm_forward(context, x.view(), {}, w.view(Shape{C}), {}, y.view(), rstd.view(Shape{N}), eps);
    return weighted_sum(y, dy) + weighted_sum(x, residual);
  };
  loss();
  rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), residual.view(),
                   dx.view(), dw.view(Shape{C}));
  EXPECT_TRUE(gradient_matches(loss, x.span(), dx.values()));
  EXPECT_TRUE(gradient_matches(loss, w.span(), dw.values()));
}

TYPED_TEST(RmsNorm, BackwardAddsToDwAndMayWriteOverItsInputs) {
  using T = TypeParam;
  constexpr int64_t N = 67, C = 131;
  Guarded<double> x64(N, C), w64(1, C), rstd64(1, N), dy64(N, C), res64(N, C), dx64(N, C), dw64(1, C),
      y64(N, C);
  Guarded<cpu::Wide<T>> rstd(1, N);
  Guarded<T> x(N, C, 4), w(1, C), dy(N, C, 1), residual(N, C, 2), dx(N, C, 3), dw(1, C);
  x.random(1), w.random(2), dy.random(3), residual.random(4), dw.fill(2), dw64.fill(2);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t c = 0; c < C; ++c) {
      x64.at(n, c) = x(n, c), dy64.at(n, c) = dy(n, c), res64.at(n, c) = residual(n, c),
                w64.at(0, c) = w(0, c);
    }
  }
  Context context = cpu_context(2);
  rmsnorm_forward(context, x64.view(), {}, w64.view(Shape{C}), {}, y64.view(), rstd64.view(Shape{N}), eps);
  rmsnorm_backward(context, x64.view(), w64.view(Shape{C}), rstd64.view(Shape{N}), dy64.view(), res64.view(),
                   dx64.view(), dw64.view(Shape{C}));
  for (int64_t n = 0; n < N; ++n) rstd.at(0, n) = static_cast<cpu::Wide<T>>(rstd64(0, n));
  rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), residual.view(),
                   dx.view(), dw.view(Shape{C}));
  EXPECT_TRUE(close(dx.values(), dx64.values(), tolerance::elementwise<T>));
  EXPECT_TRUE(close(dw.values(), dw64.values(), tolerance::elementwise<T>));
  EXPECT_TRUE(dx.intact() && dw.intact());
  const std::vector<double> apart = dx.values();
  rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), residual.view(),
                   residual.view(), dw.view(Shape{C}));
  EXPECT_TRUE(same_bits(residual.values(), apart));
  rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), {}, dx.view(),
                   dw.view(Shape{C}));
  rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), {}, dy.view(),
                   dw.view(Shape{C}));
  EXPECT_TRUE(same_bits(dy.values(), dx.values()));
}

template <class T>
class RmsNormNarrow : public testing::Test {};
TYPED_TEST_SUITE(RmsNormNarrow, NarrowStorages);

TYPED_TEST(RmsNormNarrow, AWideGradientOfTheWeightIsNotRounded) {
  using T = TypeParam;
  constexpr int64_t N = 67, C = 131;
  Guarded<T> x(N, C, 4), w(1, C), y(N, C), dy(N, C, 1), dx(N, C, 3);
  Guarded<float> rstd(1, N), dw(1, C);
  x.random(1), w.random(2), dy.random(3), dw.random(4);
  Context context = cpu_context(2);
  rmsnorm_forward(context, x.view(), {}, w.view(Shape{C}), {}, y.view(), rstd.view(Shape{N}), eps);
  std::vector<double> expected = dw.values();
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t c = 0; c < C; ++c) expected[static_cast<size_t>(c)] += dy(n, c) * x(n, c) * rstd(0, n);
  }
  rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), {}, dx.view(),
                   dw.view(Shape{C}));
  EXPECT_TRUE(close(dw.values(), expected, tolerance::elementwise<float>));
  EXPECT_TRUE(dx.intact() && dw.intact());
}

TYPED_TEST(RmsNorm, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  constexpr int64_t N = 211, C = 389;
  Guarded<T> x(N, C), w(1, C), dy(N, C);
  x.random(1), w.random(2), dy.random(3);
  std::vector<double> first[3];
  for (int threads : {1, 2, 3}) {
    Guarded<T> y(N, C), dx(N, C), dw(1, C);
    Guarded<cpu::Wide<T>> rstd(1, N);
    dw.fill(0);
    Context context = cpu_context(threads);
    rmsnorm_forward(context, x.view(), {}, w.view(Shape{C}), {}, y.view(), rstd.view(Shape{N}), eps);
    rmsnorm_backward(context, x.view(), w.view(Shape{C}), rstd.view(Shape{N}), dy.view(), {}, dx.view(),
                     dw.view(Shape{C}));
    if (threads == 1) first[0] = y.values(), first[1] = dx.values(), first[2] = dw.values();
    EXPECT_TRUE(same_bits(first[0], y.values()));
    EXPECT_TRUE(same_bits(first[1], dx.values()));
    EXPECT_TRUE(same_bits(first[2], dw.values()));
  }
}

TYPED_TEST(RmsNorm, HugeAndTinyRowsStayFinite) {
  using T = TypeParam;
  const double decades = std::is_same_v<T, Float16> ? 4 : 18;
  for (double size : {std::pow(10, -decades), std::pow(10, decades)}) {
    Guarded<T> x(1, 100), w(1, 100), y(1, 100);
    Guarded<cpu::Wide<T>> rstd(1, 1);
    x.fill(size), w.fill(1);
    Context context = cpu_context();
    rmsnorm_forward(context, x.view(), {}, w.view(Shape{100}), {}, y.view(), rstd.view(Shape{1}), 1e-300);
    EXPECT_TRUE(close(y.values(), std::vector<double>(100, 1.0), tolerance::elementwise<T>)) << size;
  }
}

}  // namespace
}  // namespace ptrain
