// Linear layers against sums in f64.
#include "kernels/ops/gemm.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

struct Size {
  int64_t N, C, O;
};

/// Decode (1 row and a few), odd sizes, sizes larger than a tile in each direction, and a long sum.
const Size sizes[] = {{1, 1, 1},    {1, 37, 53},    {1, 576, 1000}, {2, 65, 33},
                      {3, 96, 130}, {5, 77, 19},    {8, 64, 70},    {9, 130, 65},
                      {17, 24, 96}, {67, 70, 131},  {33, 700, 41},  {300, 65, 290},
                      {130, 3, 5},  {600, 30, 200}, {4, 2000, 7},   {1, 40, 3000}};

template <class T>
class Linear : public testing::Test {};
TYPED_TEST_SUITE(Linear, Storages);

TYPED_TEST(Linear, ForwardIsXTimesWTransposedPlusBias) {
  using T = TypeParam;
  for (const Size& s : sizes) {
    for (int64_t gap : {0, 5}) {
      Guarded<T> x(s.N, s.C, gap), w(s.O, s.C, gap), bias(1, s.O), old(s.N, s.O);
      x.random(1), w.random(2), bias.random(3), old.random(4);
      std::vector<double> product;
      for (int64_t n = 0; n < s.N; ++n) {
        for (int64_t o = 0; o < s.O; ++o) {
          double sum = 0;
          for (int64_t c = 0; c < s.C; ++c) sum += x(n, c) * w(o, c);
          product.push_back(sum);
        }
      }
      for (Write write : {Write::overwrite, Write::accumulate}) {
        for (bool has_bias : {false, true}) {
          Guarded<T> y(s.N, s.O, gap);
          if (write == Write::accumulate) y.random(4);
          std::vector<double> expected = product;
          for (size_t i = 0; i < expected.size(); ++i) {
            const int64_t n = static_cast<int64_t>(i) / s.O, o = static_cast<int64_t>(i) % s.O;
            expected[i] += (has_bias ? bias(0, o) : 0) + (write == Write::accumulate ? old(n, o) : 0);
          }
          Context context = cpu_context(2);
          linear_forward(context, x.view(), w.view(), has_bias ? bias.view(Shape{s.O}) : Tensor(), y.view(),
                         write);
          EXPECT_TRUE(close(y.values(), expected, tolerance::dot<T>(s.C))) << s.N << " " << s.C << " " << s.O;
          EXPECT_TRUE(y.intact());
        }
      }
    }
  }
}

TYPED_TEST(Linear, BackwardInputIsDyTimesW) {
  using T = TypeParam;
  for (const Size& s : sizes) {
    for (Write write : {Write::overwrite, Write::accumulate}) {
      Guarded<T> dy(s.N, s.O, 3), w(s.O, s.C, 2), dx(s.N, s.C, 1);
      dy.random(1), w.random(2);
      if (write == Write::accumulate) dx.random(3);
      std::vector<double> expected;
      for (int64_t n = 0; n < s.N; ++n) {
        for (int64_t c = 0; c < s.C; ++c) {
          double sum = write == Write::accumulate ? dx(n, c) : 0;
          for (int64_t o = 0; o < s.O; ++o) sum += dy(n, o) * w(o, c);
          expected.push_back(sum);
        }
      }
      Context context = cpu_context(2);
      linear_backward_input(context, dy.view(), w.view(), dx.view(), write);
      EXPECT_TRUE(close(dx.values(), expected, tolerance::dot<T>(s.O))) << s.N << " " << s.C << " " << s.O;
      EXPECT_TRUE(dx.intact());
    }
  }
}

TYPED_TEST(Linear, BackwardWeightAndBiasSumOverRows) {
  using T = TypeParam;
  for (const Size& s : sizes) {
    for (Write write : {Write::overwrite, Write::accumulate}) {
      Guarded<T> dy(s.N, s.O, 3), x(s.N, s.C, 2), dw(s.O, s.C, 1), db(1, s.O);
      dy.random(1), x.random(2);
      if (write == Write::accumulate) dw.random(3), db.random(4);
      std::vector<double> weight, bias;
      for (int64_t o = 0; o < s.O; ++o) {
        for (int64_t c = 0; c < s.C; ++c) {
          double sum = write == Write::accumulate ? dw(o, c) : 0;
          for (int64_t n = 0; n < s.N; ++n) sum += dy(n, o) * x(n, c);
          weight.push_back(sum);
        }
        double sum = write == Write::accumulate ? db(0, o) : 0;
        for (int64_t n = 0; n < s.N; ++n) sum += dy(n, o);
        bias.push_back(sum);
      }
      Context context = cpu_context(2);
      linear_backward_weight(context, dy.view(), x.view(), dw.view(), write);
      linear_backward_bias(context, dy.view(), db.view(Shape{s.O}), write);
      EXPECT_TRUE(close(dw.values(), weight, tolerance::dot<T>(s.N))) << s.N << " " << s.C << " " << s.O;
      EXPECT_TRUE(close(db.values(), bias, tolerance::elementwise<T>));
      EXPECT_TRUE(dw.intact() && db.intact());
    }
  }
}

TYPED_TEST(Linear, NoRowsLeaveAnAccumulatedGradientAndClearAnOverwrittenOne) {
  using T = TypeParam;
  Guarded<T> none(0, 7), dw(7, 7), db(1, 7), w(7, 7);
  w.random(1);
  Context context = cpu_context(2);
  linear_forward(context, none.view(), w.view(), {}, none.view());
  linear_backward_input(context, none.view(), w.view(), none.view());
  dw.fill(3), db.fill(3);
  linear_backward_weight(context, none.view(), none.view(), dw.view());
  linear_backward_bias(context, none.view(), db.view(Shape{7}));
  EXPECT_EQ(dw(6, 6), 3);
  EXPECT_EQ(db(0, 6), 3);
  linear_backward_weight(context, none.view(), none.view(), dw.view(), Write::overwrite);
  linear_backward_bias(context, none.view(), db.view(Shape{7}), Write::overwrite);
  EXPECT_EQ(dw(6, 6), 0);
  EXPECT_EQ(db(0, 6), 0);
}

TYPED_TEST(Linear, RepetitionDoesNotChangeABitAndThreadsNoMoreThanRounding) {
  using T = TypeParam;
  for (const Size& s : {Size{1, 576, 1500}, Size{3, 200, 700}, Size{301, 210, 530}, Size{70, 300, 1100}}) {
    Guarded<T> x(s.N, s.C), w(s.O, s.C), dy(s.N, s.O);
    x.random(1), w.random(2), dy.random(3);
    std::vector<double> alone[3];
    for (int threads : {1, 2, 3}) {
      std::vector<double> first[3];
      for (int repeat = 0; repeat < 2; ++repeat) {
        Guarded<T> y(s.N, s.O), dx(s.N, s.C), dw(s.O, s.C);
        Context context = cpu_context(threads);
        linear_forward(context, x.view(), w.view(), {}, y.view());
        linear_backward_input(context, dy.view(), w.view(), dx.view());
        linear_backward_weight(context, dy.view(), x.view(), dw.view(), Write::overwrite);
        const std::vector<double> now[3] = {y.values(), dx.values(), dw.values()};
        const int64_t lengths[3] = {s.C, s.O, s.N};
        for (int i = 0; i < 3; ++i) {
          if (repeat == 0) first[i] = now[i];
          if (threads == 1 && repeat == 0) alone[i] = now[i];
          EXPECT_TRUE(same_bits(first[i], now[i])) << threads;
          // Other sums may round the other way where 16 bits are kept: both are half a unit off.
          const double allowed = tolerance::dot<T>(lengths[i]) * (cpu::is_narrow<T> ? 2 : 1);
          EXPECT_TRUE(close(now[i], alone[i], allowed)) << threads;
        }
      }
    }
  }
}

template <class T>
class LinearNarrow : public testing::Test {};
TYPED_TEST_SUITE(LinearNarrow, NarrowStorages);

TYPED_TEST(LinearNarrow, WideGradientsOfWeightsAreNotRounded) {
  using T = TypeParam;
  for (const Size& s : {Size{67, 70, 131}, Size{1, 40, 300}, Size{1100, 33, 65}, Size{30, 600, 530}}) {
    for (Write write : {Write::overwrite, Write::accumulate}) {
      Guarded<T> dy(s.N, s.O, 3), x(s.N, s.C, 2);
      Guarded<float> dw(s.O, s.C, 1), db(1, s.O);
      dy.random(1), x.random(2);
      if (write == Write::accumulate) dw.random(3), db.random(4);
      std::vector<double> weight, bias;
      for (int64_t o = 0; o < s.O; ++o) {
        for (int64_t c = 0; c < s.C; ++c) {
          double sum = write == Write::accumulate ? dw(o, c) : 0;
          for (int64_t n = 0; n < s.N; ++n) sum += dy(n, o) * x(n, c);
          weight.push_back(sum);
        }
        double sum = write == Write::accumulate ? db(0, o) : 0;
        for (int64_t n = 0; n < s.N; ++n) sum += dy(n, o);
        bias.push_back(sum);
      }
      Context context = cpu_context(2);
      linear_backward_weight(context, dy.view(), x.view(), dw.view(), write);
      linear_backward_bias(context, dy.view(), db.view(Shape{s.O}), write);
      EXPECT_TRUE(close(dw.values(), weight, tolerance::dot<float>(s.N))) << s.N << " " << s.C << " " << s.O;
      EXPECT_TRUE(close(db.values(), bias, tolerance::elementwise<float>));
      EXPECT_TRUE(dw.intact() && db.intact());
    }
  }
}

TYPED_TEST(LinearNarrow, LittleScratchMeansSmallBlocksAndTheSameResult) {
  using T = TypeParam;
  constexpr int64_t N = 130, C = 300, O = 170;
  Guarded<T> x(N, C), w(O, C), whole(N, O), blocked(N, O);
  x.random(1), w.random(2);
  Context context = cpu_context(2);
  linear_forward(context, x.view(), w.view(), {}, whole.view());
  context.scratch.shape = Shape{2 * 3 * 32 * 32 * 4};
  linear_forward(context, x.view(), w.view(), {}, blocked.view());
  EXPECT_TRUE(close(blocked.values(), whole.values(), 2 * tolerance::dot<T>(C)));
  EXPECT_TRUE(blocked.intact());
  context.scratch.shape = Shape{1000};
  try {
    linear_forward(context, x.view(), w.view(), {}, blocked.view());
    FAIL() << "1000 bytes hold no block";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::defect);
    EXPECT_NE(std::string(error.what()).find("1000 bytes of scratch"), std::string::npos) << error.what();
  }
}

TYPED_TEST(Linear, RanksAsThreadsCallItAtTheSameTime) {
  using T = TypeParam;
  constexpr int64_t N = 40, C = 90, O = 300;
  Guarded<T> x(N, C), w(O, C), alone(N, O);
  x.random(1), w.random(2);
  Context one = cpu_context(1);
  linear_forward(one, x.view(), w.view(), {}, alone.view());
  std::vector<Guarded<T>> results(6, Guarded<T>(N, O));
  {
    std::vector<std::jthread> ranks;
    for (Guarded<T>& y : results) {
      ranks.emplace_back([&] {
        for (int repeat = 0; repeat < 20; ++repeat) {
          Context context = cpu_context(1);
          linear_forward(context, x.view(), w.view(), {}, y.view());
        }
      });
    }
  }
  for (Guarded<T>& y : results) EXPECT_TRUE(same_bits(y.values(), alone.values()));
}

}  // namespace
}  // namespace ptrain
