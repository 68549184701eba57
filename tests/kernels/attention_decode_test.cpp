// One token against a cache of keys and values, against sums in f64.
#include <gtest/gtest.h>

#include "kernels/ops/attention.h"
#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

template <class T>
class AttentionDecode : public testing::Test {};
TYPED_TEST_SUITE(AttentionDecode, Storages);

struct Case {
  AttentionDims dims;
  int64_t P;
  std::vector<int32_t> lengths;
};

const Case cases[] = {
    {{1, 0, 1, 1, 4, 1, 0, 0.5, 0}, 1, {1}},          {{3, 0, 6, 2, 8, 3, 0, 0.3, 0}, 40, {1, 40, 17}},
    {{2, 0, 4, 2, 6, 3, 2, 0.3, 0}, 9, {9, 2}},       {{2, 0, 3, 3, 64, 1, 0, 0.125, 0}, 700, {699, 65}},
    {{1, 0, 9, 3, 64, 3, 0, 0.125, 0}, 2000, {1234}}, {{2, 0, 2, 1, 80, 2, 0, 0.1, 16}, 90, {90, 5}}};

template <class T>
std::vector<double> oracle_of(const Case& c, const Guarded<T>& q, const Guarded<T>& keys,
                              const Guarded<T>& values) {
  const AttentionDims& d = c.dims;
  std::vector<double> out;
  for (int64_t b = 0; b < d.B; ++b) {
    for (int64_t h = 0; h < d.H; ++h) {
      const int64_t kv = (d.first_head + h) / d.group, last = c.lengths[static_cast<size_t>(b)] - 1;
      std::vector<double> sum(static_cast<size_t>(d.D));
      double total = 0;
      for (int64_t s = d.window > 0 ? std::max<int64_t>(0, last - d.window + 1) : 0; s <= last; ++s) {
        double score = 0;
        for (int64_t i = 0; i < d.D; ++i) score += q(b, h * d.D + i) * keys(b * c.P + s, kv * d.D + i);
        const double p = std::exp(score * d.scale);
        total += p;
        for (int64_t i = 0; i < d.D; ++i)
          sum[static_cast<size_t>(i)] += p * values(b * c.P + s, kv * d.D + i);
      }
      for (double& x : sum) out.push_back(x / total);
    }
  }
  return out;
}

TYPED_TEST(AttentionDecode, ReadsTheValidPositionsOnly) {
  using T = TypeParam;
  for (const Case& c : cases) {
    const AttentionDims& d = c.dims;
    Guarded<T> q(d.B, d.H * d.D, 3), keys(d.B * c.P, d.K * d.D), values(d.B * c.P, d.K * d.D);
    q.random(1), keys.random(2), values.random(3);
    const std::vector<double> expected = oracle_of(c, q, keys, values);
    std::vector<int32_t> lengths = c.lengths;
    for (int64_t b = 0; b < d.B; ++b) {  // what is not valid yet may hold anything
      for (int64_t s = lengths[static_cast<size_t>(b)]; s < c.P; ++s) {
        for (int64_t i = 0; i < d.K * d.D; ++i) {
          keys.at(b * c.P + s, i) = cpu::convert<T>(std::nan(""));
          values.at(b * c.P + s, i) = cpu::convert<T>(std::nan(""));
        }
      }
    }
    std::vector<double> first;
    for (int threads : {1, 2, 3, 7}) {
      Guarded<T> out(d.B, d.H * d.D, 2);
      Context context = cpu_context(threads);
      attention_decode(context, d, q.view(), keys.view(Shape{d.B, c.P, d.K * d.D}),
                       values.view(Shape{d.B, c.P, d.K * d.D}), ids_of(lengths), out.view());
      EXPECT_TRUE(close(out.values(), expected, tolerance::attention<T>(d.D, c.P))) << c.P;
      EXPECT_TRUE(out.intact());
      if (threads == 1) first = out.values();
      EXPECT_TRUE(same_bits(first, out.values())) << "threads " << threads;
    }
  }
}

}  // namespace
}  // namespace ptrain
