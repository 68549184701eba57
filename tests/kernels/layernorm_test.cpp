// LayerNorm against its formula in f64, and its gradient against central differences.
#include "kernels/ops/layernorm.h"

#include <gtest/gtest.h>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

constexpr double eps = 1e-5;

/// Everything that the two ops read and write, of T, rows `gap` wider than the matrices.
template <class T>
struct NormOperands {
  NormOperands(int64_t N, int64_t C, int64_t gap = 0)
      : N(N),
        C(C),
        x(N, C, gap),
        delta(N, C, gap),
        w(1, C),
        b(1, C),
        sum(N, C, gap),
        y(N, C, gap),
        mean(1, N),
        rstd(1, N),
        dy(N, C, gap),
        residual(N, C, gap),
        dx(N, C, gap),
        dw(1, C),
        db(1, C) {
    x.random(1), delta.random(2), w.random(3), b.random(4), dy.random(5), residual.random(6);
    dw.fill(2), db.fill(-1);
  }
  void forward(Context& context, bool has_delta = false, bool has_bias = true) {
    layernorm_forward(context, x.view(), has_delta ? delta.view() : Tensor(), w.view(Shape{C}),
                      has_bias ? b.view(Shape{C}) : Tensor(), has_delta ? sum.view() : Tensor(), y.view(),
                      mean.view(Shape{N}), rstd.view(Shape{N}), eps);
  }
  void backward(Context& context, Tensor dresidual, Tensor to, bool has_bias = true) {
    layernorm_backward(context, x.view(), w.view(Shape{C}), mean.view(Shape{N}), rstd.view(Shape{N}),
                       dy.view(), dresidual, to, dw.view(Shape{C}), has_bias ? db.view(Shape{C}) : Tensor());
  }
  bool intact() const {
    return sum.intact() && y.intact() && mean.intact() && rstd.intact() && dx.intact() && dw.intact() &&
           db.intact();
  }
  int64_t N, C;
  Guarded<T> x, delta, w, b, sum, y;
  Guarded<cpu::Wide<T>> mean, rstd;
  Guarded<T> dy, residual, dx, dw, db;
};

/// Forward in f64 by the formula.
struct Expected {
  std::vector<double> sum, y, mean, rstd;
};
template <class T>
Expected expected_of(const NormOperands<T>& o, bool has_delta, bool has_bias) {
  Expected e;
  for (int64_t n = 0; n < o.N; ++n) {
    double total = 0, squares = 0;
    std::vector<double> row;
    for (int64_t c = 0; c < o.C; ++c) row.push_back(rounded<T>(o.x(n, c) + (has_delta ? o.delta(n, c) : 0)));
    for (double value : row) total += value;
    const double mean = total / static_cast<double>(o.C);
    for (double value : row) squares += (value - mean) * (value - mean);
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(o.C) + eps);
    for (int64_t c = 0; c < o.C; ++c) {
      const double normalized = (row[static_cast<size_t>(c)] - mean) * rstd;
      e.y.push_back(normalized * o.w(0, c) + (has_bias ? o.b(0, c) : 0));
    }
    e.sum.insert(e.sum.end(), row.begin(), row.end());
    e.mean.push_back(mean), e.rstd.push_back(rstd);
  }
  return e;
}

/// Entries that are sums of numbers of size 1 err relative to that, however much of them cancels.
std::vector<double> beside_one(std::vector<double> values) {
  values.push_back(1);
  return values;
}

template <class T>
class LayerNorm : public testing::Test {};
TYPED_TEST_SUITE(LayerNorm, Storages);

TYPED_TEST(LayerNorm, ForwardCentersEachRowAndDividesByItsDeviation) {
  using T = TypeParam;
  for (int64_t N : {1, 7, 67}) {
    for (int64_t C : {1, 24, 65, 577}) {
      for (bool has_delta : {false, true}) {
        for (bool has_bias : {false, true}) {
          NormOperands<T> o(N, C, has_delta ? 3 : 0);
          const Expected e = expected_of(o, has_delta, has_bias);
          Context context = cpu_context(2);
          o.forward(context, has_delta, has_bias);
          EXPECT_TRUE(close(o.y.values(), e.y, tolerance::elementwise<T>)) << N << " x " << C;
          EXPECT_TRUE(
              close(beside_one(o.mean.values()), beside_one(e.mean), tolerance::elementwise<cpu::Wide<T>>));
          EXPECT_TRUE(close(o.rstd.values(), e.rstd, tolerance::elementwise<cpu::Wide<T>>));
          if (has_delta) {
            EXPECT_TRUE(close(o.sum.values(), e.sum, tolerance::elementwise<T>));
          }
          EXPECT_TRUE(o.intact());
        }
      }
    }
  }
}

TYPED_TEST(LayerNorm, SumMayLieOverX) {
  using T = TypeParam;
  NormOperands<T> apart(5, 33), over(5, 33);
  Context context = cpu_context();
  apart.forward(context, true);
  layernorm_forward(context, over.x.view(), over.delta.view(), over.w.view(Shape{33}), over.b.view(Shape{33}),
                    over.x.view(), over.y.view(), over.mean.view(Shape{5}), over.rstd.view(Shape{5}), eps);
  EXPECT_TRUE(same_bits(apart.sum.values(), over.x.values()));
  EXPECT_TRUE(same_bits(apart.y.values(), over.y.values()));
}

TEST(LayerNormGradient, MatchesCentralDifferences) {
  NormOperands<double> o(5, 37);
  o.dw.fill(0), o.db.fill(0);
  Context context = cpu_context();
  const auto loss = [&] {
    o.forward(context);
    return weighted_sum(o.y, o.dy) + weighted_sum(o.x, o.residual);
  };
  loss();
  o.backward(context, o.residual.view(), o.dx.view());
  EXPECT_TRUE(gradient_matches(loss, o.x.span(), o.dx.values()));
  EXPECT_TRUE(gradient_matches(loss, o.w.span(), o.dw.values()));
  EXPECT_TRUE(gradient_matches(loss, o.b.span(), o.db.values()));
}

TYPED_TEST(LayerNorm, BackwardAddsToTheWeightsGradientsAndMayWriteOverItsInputs) {
  using T = TypeParam;
  constexpr int64_t N = 67, C = 131;
  NormOperands<T> o(N, C, 3);
  NormOperands<double> wide(N, C);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t c = 0; c < C; ++c) {
      wide.x.at(n, c) = o.x(n, c), wide.dy.at(n, c) = o.dy(n, c), wide.residual.at(n, c) = o.residual(n, c);
      wide.w.at(0, c) = o.w(0, c);
    }
  }
  Context context = cpu_context(2);
  wide.forward(context);
  wide.backward(context, wide.residual.view(), wide.dx.view());
  o.forward(context);
  o.backward(context, o.residual.view(), o.dx.view());
  EXPECT_TRUE(close(o.dx.values(), wide.dx.values(), tolerance::elementwise<T>));
  EXPECT_TRUE(close(o.dw.values(), wide.dw.values(), tolerance::elementwise<T>));
  EXPECT_TRUE(close(o.db.values(), wide.db.values(), tolerance::elementwise<T>));
  EXPECT_TRUE(o.intact());
  const std::vector<double> apart = o.dx.values(), db = o.db.values();
  o.backward(context, o.residual.view(), o.residual.view(), false);
  EXPECT_TRUE(same_bits(o.residual.values(), apart));
  EXPECT_TRUE(same_bits(o.db.values(), db)) << "there was no bias";
  o.backward(context, {}, o.dx.view());
  o.backward(context, {}, o.dy.view());
  EXPECT_TRUE(same_bits(o.dy.values(), o.dx.values()));
}

template <class T>
class LayerNormNarrow : public testing::Test {};
TYPED_TEST_SUITE(LayerNormNarrow, NarrowStorages);

TYPED_TEST(LayerNormNarrow, WideGradientsOfTheWeightsAreNotRounded) {
  using T = TypeParam;
  constexpr int64_t N = 67, C = 131;
  NormOperands<T> o(N, C, 4);
  Guarded<float> dw(1, C), db(1, C);
  dw.random(7), db.random(8);
  Context context = cpu_context(2);
  o.forward(context);
  std::vector<double> dw_expected = dw.values(), db_expected = db.values();
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t c = 0; c < C; ++c) {
      dw_expected[static_cast<size_t>(c)] += o.dy(n, c) * (o.x(n, c) - o.mean(0, n)) * o.rstd(0, n);
      db_expected[static_cast<size_t>(c)] += o.dy(n, c);
    }
  }
  layernorm_backward(context, o.x.view(), o.w.view(Shape{C}), o.mean.view(Shape{N}), o.rstd.view(Shape{N}),
                     o.dy.view(), {}, o.dx.view(), dw.view(Shape{C}), db.view(Shape{C}));
  EXPECT_TRUE(close(dw.values(), dw_expected, tolerance::elementwise<float>));
  EXPECT_TRUE(close(db.values(), db_expected, tolerance::elementwise<float>));
  EXPECT_TRUE(o.dx.intact() && dw.intact() && db.intact());
}

TYPED_TEST(LayerNorm, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  std::vector<double> first[4];
  for (int threads : {1, 2, 3}) {
    NormOperands<T> o(211, 389);
    Context context = cpu_context(threads);
    o.forward(context);
    o.backward(context, {}, o.dx.view());
    const std::vector<double> found[4] = {o.y.values(), o.dx.values(), o.dw.values(), o.db.values()};
    for (size_t i = 0; i < std::size(found); ++i) {
      if (threads == 1) first[i] = found[i];
      EXPECT_TRUE(same_bits(first[i], found[i])) << threads << " threads, output " << i;
    }
  }
}

TYPED_TEST(LayerNorm, ALargeOffsetOfARowCancels) {
  using T = TypeParam;
  // Numbers a few units in the last place above and below 1000: a mean of squares less the square of the mean
  // would be noise.
  const double offset = 1000, step = 1000 * tolerance::unit<T> * 8;
  NormOperands<T> o(1, 100);
  std::vector<double> signs;
  double total = 0;
  for (int64_t c = 0; c < 100; ++c) {
    o.x.at(0, c) = cpu::convert<T>(offset + (c % 2 == 0 ? step : -step));
    total += o.x(0, c);
  }
  const double mean = total / 100;
  double squares = 0;
  for (int64_t c = 0; c < 100; ++c) squares += (o.x(0, c) - mean) * (o.x(0, c) - mean) / 100;
  for (int64_t c = 0; c < 100; ++c) signs.push_back((o.x(0, c) - mean) / std::sqrt(squares + eps));
  o.w.fill(1), o.b.fill(0);
  Context context = cpu_context();
  o.forward(context);
  // The mean is kept with an error of up to half a unit; the distances from it are about eight units.
  EXPECT_TRUE(close(o.y.values(), signs, 1.0 / 16 + tolerance::elementwise<T>));
}

TEST(LayerNormDispatch, NamesTheOperandThatDoesNotFit) {
  NormOperands<float> o(3, 5);
  Context context = cpu_context();
  const auto message_of = [](const auto& body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  EXPECT_EQ(message_of([&] {
              layernorm_forward(context, o.x.view(), {}, o.w.view(Shape{5}), o.b.view(Shape{4}), {},
                                o.y.view(), o.mean.view(Shape{3}), o.rstd.view(Shape{3}), eps);
            }),
            "layernorm_forward: b is (4) with row stride 4, expected 5 contiguous elements");
  Guarded<double> db(1, 5);
  EXPECT_EQ(message_of([&] {
              layernorm_backward(context, o.x.view(), o.w.view(Shape{5}), o.mean.view(Shape{3}),
                                 o.rstd.view(Shape{3}), o.dy.view(), {}, o.dx.view(), o.dw.view(Shape{5}),
                                 db.view(Shape{5}));
            }),
            "layernorm_backward: db is f64, expected f32");
}

}  // namespace
}  // namespace ptrain
