// Cross-entropy against its formula in f64: whole, and cut over parts of the vocabulary.
#include "kernels/ops/loss.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

/// The loss of every row by itself.
void loss_of_rows(Context& context, Tensor statistics, Tensor nll) {
  for (int64_t r = 0; r < statistics.rows(); ++r) {
    double* sum = nll.as<double>() + r;
    *sum = 0;
    loss_sum(context, statistics.row_range(r, 1), Tensor(sum, {1}, DType::f64));
  }
}

template <class T>
class Loss : public testing::Test {};
TYPED_TEST_SUITE(Loss, Storages);

std::vector<int32_t> targets_below(int64_t R, int64_t V) {
  const Rng rng(5, 1);
  std::vector<int32_t> targets;
  for (int64_t r = 0; r < R; ++r) {
    targets.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(r), static_cast<uint64_t>(V))));
  }
  return targets;
}

/// Negative log-likelihood and the gradient of scale * sum of them.
struct Oracle {
  std::vector<double> nll, gradient;
};

template <class T>
Oracle oracle_of(const Guarded<T>& logits, const std::vector<int32_t>& targets, double scale) {
  Oracle oracle;
  for (int64_t r = 0; r < logits.rows(); ++r) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t v = 0; v < logits.columns(); ++v) largest = std::max(largest, logits(r, v));
    for (int64_t v = 0; v < logits.columns(); ++v) sum += std::exp(logits(r, v) - largest);
    const int64_t target = targets[static_cast<size_t>(r)];
    oracle.nll.push_back(largest + std::log(sum) - logits(r, target));
    for (int64_t v = 0; v < logits.columns(); ++v) {
      oracle.gradient.push_back((std::exp(logits(r, v) - largest) / sum - (v == target)) * scale);
    }
  }
  return oracle;
}

TYPED_TEST(Loss, WholeVocabularyGivesLikelihoodAndGradient) {
  using T = TypeParam;
  struct Case {
    int64_t R, V, gap;
    double size;
  };
  for (const Case& c :
       {Case{1, 1, 0, 1}, Case{3, 7, 2, 1}, Case{5, 1001, 0, 3}, Case{2, 49152, 0, 4}, Case{9, 65, 1, 30}}) {
    Guarded<T> logits(c.R, c.V, c.gap);
    Guarded<cpu::Wide<T>> statistics(c.R, 3);
    Guarded<double> nll(1, c.R);
    logits.random(1, c.size);
    std::vector<int32_t> targets = targets_below(c.R, c.V);
    const Oracle oracle = oracle_of(logits, targets, 0.37);
    Context context = cpu_context(2);
    loss_statistics(context, logits.view(), ids_of(targets), 0, statistics.view());
    loss_of_rows(context, statistics.view(), nll.view());
    loss_backward(context, logits.view(), statistics.view(), ids_of(targets), 0, 0.37);
    EXPECT_TRUE(close(nll.values(), oracle.nll, tolerance::elementwise<cpu::Wide<T>>)) << c.V;
    EXPECT_TRUE(close(logits.values(), oracle.gradient, tolerance::elementwise<T>)) << c.V;
    EXPECT_TRUE(logits.intact() && statistics.intact() && nll.intact());
  }
}

TYPED_TEST(Loss, PartsOfTheVocabularyCombineToTheWhole) {
  using T = TypeParam;
  constexpr int64_t R = 11, V = 301;
  for (int64_t P : {1, 2, 3, 5}) {
    Guarded<T> logits(R, V);
    Guarded<cpu::Wide<T>> parts(P * R, 3), statistics(R, 3);
    logits.random(1, 3);
    std::vector<int32_t> targets = targets_below(R, V);
    const Oracle oracle = oracle_of(logits, targets, 2);
    Context context = cpu_context(2);
    for (int64_t p = 0; p < P; ++p) {
      const int64_t first = V * p / P, count = V * (p + 1) / P - first;
      loss_statistics(context, logits.view().column_range(first, count), ids_of(targets), first,
                      parts.view().row_range(p * R, R));
      for (int64_t r = 0; r < R; ++r) {
        const int64_t local = targets[static_cast<size_t>(r)] - first;
        if (local < 0 || local >= count) {
          EXPECT_EQ(parts(p * R + r, 2), -std::numeric_limits<double>::infinity());
        }
      }
    }
    Guarded<double> nll(1, R);
    loss_combine(context, parts.view(Shape{P, R, 3}), statistics.view());
    loss_of_rows(context, statistics.view(), nll.view());
    for (int64_t p = 0; p < P; ++p) {
      const int64_t first = V * p / P, count = V * (p + 1) / P - first;
      loss_backward(context, logits.view().column_range(first, count), statistics.view(), ids_of(targets),
                    first, 2);
    }
    EXPECT_TRUE(close(nll.values(), oracle.nll, tolerance::elementwise<cpu::Wide<T>>)) << P;
    EXPECT_TRUE(close(logits.values(), oracle.gradient, tolerance::elementwise<T>)) << P;
    EXPECT_TRUE(parts.intact() && statistics.intact());
  }
}

TYPED_TEST(Loss, LongRowsLoseNothingToTheSum) {
  // 49152 equal logits: nll is ln 49152. A sum in f32 would be off by 1e-5.
  using T = TypeParam;
  constexpr int64_t V = 49152;
  Guarded<T> logits(1, V);
  Guarded<cpu::Wide<T>> statistics(1, 3);
  Guarded<double> nll(1, 1);
  for (int64_t v = 0; v < V; ++v) logits.at(0, v) = cpu::convert<T>(-3.3);
  std::vector<int32_t> targets = {77};
  Context context = cpu_context();
  loss_statistics(context, logits.view(), ids_of(targets), 0, statistics.view());
  loss_of_rows(context, statistics.view(), nll.view());
  EXPECT_NEAR(nll(0, 0), std::log(49152.0), 1e-12);
}

TYPED_TEST(Loss, SureAndHopelessRowsKeepTheirDigits) {
  using T = TypeParam;
  Guarded<T> logits(2, 3);
  Guarded<cpu::Wide<T>> statistics(2, 3);
  Guarded<double> nll(1, 2);
  logits.fill(0);
  logits.at(0, 1) = cpu::convert<T>(60.0), logits.at(1, 1) = cpu::convert<T>(500.0);
  std::vector<int32_t> targets = {1, 0};
  Context context = cpu_context();
  loss_statistics(context, logits.view(), ids_of(targets), 0, statistics.view());
  loss_of_rows(context, statistics.view(), nll.view());
  loss_backward(context, logits.view(), statistics.view(), ids_of(targets), 0, 1);
  EXPECT_NEAR(nll(0, 0), 0, 1e-20);
  EXPECT_NEAR(nll(0, 1), 500, 1e-4);
  EXPECT_EQ(logits(1, 0), -1);
  EXPECT_EQ(logits(1, 1), 1);
  const double kept = rounded<T>(std::exp(-60.0));  // nothing in f16
  EXPECT_NEAR(logits(0, 0), kept, kept * (cpu::is_narrow<T> ? tolerance::unit<T> : 4e-7));
}

TYPED_TEST(Loss, NotANumberStaysVisible) {
  using T = TypeParam;
  Guarded<T> logits(1, 100);
  Guarded<cpu::Wide<T>> statistics(1, 3);
  Guarded<double> nll(1, 1);
  logits.random(1);
  logits.at(0, 50) = cpu::convert<T>(std::nan(""));
  std::vector<int32_t> targets = {1};
  Context context = cpu_context();
  loss_statistics(context, logits.view(), ids_of(targets), 0, statistics.view());
  loss_of_rows(context, statistics.view(), nll.view());
  EXPECT_TRUE(std::isnan(nll(0, 0)));
}

TEST(LossGradient, MatchesCentralDifferences) {
  constexpr int64_t R = 3, V = 29;
  Guarded<double> logits(R, V), gradient(R, V), statistics(R, 3), nll(1, R);
  logits.random(1), gradient.random(1);
  std::vector<int32_t> targets = targets_below(R, V);
  Context context = cpu_context();
  const auto loss = [&] {
    loss_statistics(context, logits.view(), ids_of(targets), 0, statistics.view());
    loss_of_rows(context, statistics.view(), nll.view());
    return 0.5 * (nll(0, 0) + nll(0, 1) + nll(0, 2));
  };
  loss();
  loss_backward(context, gradient.view(), statistics.view(), ids_of(targets), 0, 0.5);
  EXPECT_TRUE(gradient_matches(loss, logits.span(), gradient.values()));
}

TYPED_TEST(Loss, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  std::vector<double> first;
  for (int threads : {1, 2, 3}) {
    Guarded<T> logits(7, 9001);
    Guarded<cpu::Wide<T>> statistics(7, 3);
    logits.random(1);
    std::vector<int32_t> targets = targets_below(7, 9001);
    Context context = cpu_context(threads);
    loss_statistics(context, logits.view(), ids_of(targets), 0, statistics.view());
    loss_backward(context, logits.view(), statistics.view(), ids_of(targets), 0, 1);
    if (threads == 1) first = logits.values();
    EXPECT_TRUE(same_bits(first, logits.values()));
  }
}

}  // namespace
}  // namespace ptrain
