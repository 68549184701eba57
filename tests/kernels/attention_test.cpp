// Attention forward and backward against the whole (T, T) matrix in f64.
#include "kernels/ops/attention.h"

#include <gtest/gtest.h>

#include "tests/kernels/attention_cases.h"
#include "tests/support/close.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

/// Everything an attention call reads and writes; gaps make each a column view of its own stride.
template <class T>
struct Operands {
  Operands(const AttentionDims& d, int64_t gap)
      : q(d.B * d.T, d.H * d.D, gap),
        k(d.B * d.T, d.K * d.D, 2 * gap),
        v(d.B * d.T, d.K * d.D, 3 * gap),
        out(d.B * d.T, d.H * d.D, gap),
        lse(1, d.B * d.H * d.T),
        dout(d.B * d.T, d.H * d.D, 2 * gap),
        delta(1, d.B * d.H * d.T),
        dq(d.B * d.T, d.H * d.D, gap),
        dk(d.B * d.T, d.K * d.D, 5 * gap),
        dv(d.B * d.T, d.K * d.D, gap) {
    q.random(1), k.random(2), v.random(3), dout.random(4);
  }
  void forward(Context& context, const AttentionDims& d, std::vector<int32_t>& starts) {
    attention_forward(context, d, q.view(), k.view(), v.view(), ids_of(starts), out.view(),
                      lse.view(Shape{d.B, d.H, d.T}));
  }
  void backward(Context& context, const AttentionDims& d, std::vector<int32_t>& starts) {
    const Shape rows{d.B, d.H, d.T};
    attention_backward(context, d, q.view(), k.view(), v.view(), ids_of(starts), out.view(), lse.view(rows),
                       dout.view(), delta.view(rows), dq.view(), dk.view(), dv.view());
  }
  std::vector<double> results() const {
    std::vector<double> all;
    for (const std::vector<double>& values :
         {out.values(), lse.values(), delta.values(), dq.values(), dk.values(), dv.values()}) {
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  Guarded<T> q, k, v, out;
  Guarded<cpu::Wide<T>> lse;
  Guarded<T> dout;
  Guarded<cpu::Wide<T>> delta;
  Guarded<T> dq, dk, dv;
};

template <class T>
class Attention : public testing::Test {};
TYPED_TEST_SUITE(Attention, Storages);

TYPED_TEST(Attention, ForwardAndBackwardAgreeWithTheWholeMatrix) {
  using T = TypeParam;
  for (const AttentionCase& c : attention_cases()) {
    for (int64_t gap : {0, 3}) {
      Operands<T> x(c.dims, gap);
      std::vector<int32_t> starts = document_starts(c);
      const AttentionOracle oracle = attention_oracle(c, starts, x.q, x.k, x.v, x.dout);
      Context context = cpu_context(2);
      x.forward(context, c.dims, starts);
      x.backward(context, c.dims, starts);
      const double allowed = tolerance::attention_backward<T>(c.dims.D, c.dims.T);
      EXPECT_TRUE(close(x.out.values(), oracle.out, tolerance::attention<T>(c.dims.D, c.dims.T))) << c.name;
      EXPECT_TRUE(close(x.lse.values(), oracle.lse, tolerance::attention<cpu::Wide<T>>(c.dims.D, c.dims.T)))
          << c.name;
      EXPECT_TRUE(close(x.delta.values(), oracle.delta, allowed)) << c.name;
      EXPECT_TRUE(close(x.dv.values(), oracle.dv, allowed)) << c.name;
      // Documents of one token have no gradient by q and k: only rounding is left of it.
      double largest = 0;
      for (double g : oracle.dq) largest = std::max(largest, std::fabs(g));
      if (largest > 1e-12) {
        EXPECT_TRUE(close(x.dq.values(), oracle.dq, allowed)) << c.name;
        EXPECT_TRUE(close(x.dk.values(), oracle.dk, allowed)) << c.name;
      } else {
        for (double g : x.dq.values()) EXPECT_NEAR(g, 0, 100 * tolerance::unit<cpu::Wide<T>>) << c.name;
        for (double g : x.dk.values()) EXPECT_NEAR(g, 0, 100 * tolerance::unit<cpu::Wide<T>>) << c.name;
      }
      for (const Guarded<T>* written : {&x.out, &x.dq, &x.dk, &x.dv}) {
        EXPECT_TRUE(written->intact()) << c.name;
      }
      EXPECT_TRUE(x.lse.intact() && x.delta.intact()) << c.name;
    }
  }
}

TYPED_TEST(Attention, ThreadsAndRepetitionDoNotChangeABit) {
  using T = TypeParam;
  for (const AttentionCase& c : attention_cases()) {
    std::vector<int32_t> starts = document_starts(c);
    std::vector<double> first;
    for (int threads : {1, 2, 3, 2}) {
      Operands<T> x(c.dims, 1);
      Context context = cpu_context(threads);
      x.forward(context, c.dims, starts);
      x.backward(context, c.dims, starts);
      if (first.empty()) first = x.results();
      EXPECT_TRUE(same_bits(first, x.results())) << c.name << ", threads " << threads;
    }
  }
}

template <class T>
class AttentionNarrow : public testing::Test {};
TYPED_TEST_SUITE(AttentionNarrow, NarrowStorages);

TYPED_TEST(AttentionNarrow, ScratchForOneHeadIsEnoughAndForNoneIsRefused) {
  using T = TypeParam;
  const AttentionCase c{"heads", {2, 70, 6, 3, 8, 2, 0, 0.3, 0}, {30, 7, 41}};
  std::vector<int32_t> starts = document_starts(c);
  Operands<T> x(c.dims, 1), y(c.dims, 1);
  Context context = cpu_context(3);
  x.forward(context, c.dims, starts);
  x.backward(context, c.dims, starts);
  context.scratch.shape = Shape{2 * 70 * 8 * 4};
  y.forward(context, c.dims, starts);
  y.backward(context, c.dims, starts);
  EXPECT_TRUE(same_bits(x.results(), y.results()));
  context.scratch = {};
  EXPECT_THROW(y.backward(context, c.dims, starts), Error);
}

TYPED_TEST(Attention, LargeScoresNeitherOverflowNorLoseRows) {
  using T = TypeParam;
  AttentionCase c{"large", {1, 70, 1, 1, 8, 1, 0, 1.0, 0}, {}};
  Operands<T> x(c.dims, 0);
  x.q.random(1, 12), x.k.random(2, 12);  // scores of several hundred: softmax picks one key or two
  std::vector<int32_t> starts = document_starts(c);
  const AttentionOracle oracle = attention_oracle(c, starts, x.q, x.k, x.v, x.dout);
  Context context = cpu_context();
  x.forward(context, c.dims, starts);
  x.backward(context, c.dims, starts);
  // tolerance::attention is for scores up to 8; the error of a score grows with it. Where one key takes all,
  // gradients are small differences of dp and delta, and the rounding of a 16-bit out weighs more in delta.
  const double allowed = tolerance::stored<T>(100 * tolerance::attention<cpu::Wide<T>>(8, 70)) +
                         (cpu::is_narrow<T> ? 4 * tolerance::unit<T> : 0);
  EXPECT_TRUE(close(x.out.values(), oracle.out, allowed));
  EXPECT_TRUE(close(x.lse.values(), oracle.lse, tolerance::attention<cpu::Wide<T>>(8, 70)));
  EXPECT_TRUE(close(x.dq.values(), oracle.dq, allowed));
  EXPECT_TRUE(close(x.dk.values(), oracle.dk, allowed));
  EXPECT_TRUE(close(x.dv.values(), oracle.dv, allowed));
}

TEST(AttentionGradient, MatchesCentralDifferences) {
  const AttentionCase cases[] = {{"group", {2, 9, 3, 1, 4, 3, 0, 0.5, 0}, {4, 1, 3, 9}},
                                 {"cut group", {1, 8, 4, 2, 3, 3, 2, 0.7, 0}, {}},
                                 {"window", {1, 70, 1, 1, 2, 1, 0, 0.7, 5}, {}}};
  for (const AttentionCase& c : cases) {
    Operands<double> x(c.dims, 0);
    std::vector<int32_t> starts = document_starts(c);
    Context context = cpu_context();
    const auto loss = [&] {
      x.forward(context, c.dims, starts);
      return weighted_sum(x.out, x.dout);
    };
    loss();
    x.backward(context, c.dims, starts);
    EXPECT_TRUE(gradient_matches(loss, x.q.span(), x.dq.values())) << c.name;
    EXPECT_TRUE(gradient_matches(loss, x.k.span(), x.dk.values())) << c.name;
    EXPECT_TRUE(gradient_matches(loss, x.v.span(), x.dv.values())) << c.name;
  }
}

}  // namespace
}  // namespace ptrain
