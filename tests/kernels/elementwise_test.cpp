// Moving, adding and counting elements.
#include "kernels/ops/elementwise.h"

#include <gtest/gtest.h>

#include <bit>
#include <numeric>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

template <class T>
class Elementwise : public testing::Test {};
TYPED_TEST_SUITE(Elementwise, Storages);

TYPED_TEST(Elementwise, FillAddScaleAndBiasTouchTheirElementsOnly) {
  using T = TypeParam;
  for (int64_t N : {0, 1, 7, 130}) {
    for (int64_t C : {1, 33, 257}) {
      for (int64_t gap : {0, 3}) {
        Guarded<T> x(N, C, gap), y(N, C, gap), bias(1, C);
        x.random(1), bias.random(2);
        Context context = cpu_context(2);
        fill(context, y.view(), 2);
        add(context, x.view(), y.view());
        scale(context, y.view(), -0.5);
        add_bias(context, y.view(), bias.view(Shape{C}));
        for (int64_t n = 0; n < N; ++n) {
          for (int64_t c = 0; c < C; ++c) {
            const double sum = rounded<T>(2 + x(n, c));
            ASSERT_EQ(y(n, c), rounded<T>(rounded<T>(sum * -0.5) + bias(0, c)));
          }
        }
        EXPECT_TRUE(y.intact() && x.intact());
      }
    }
  }
}

TYPED_TEST(Elementwise, RowsAreGatheredAndScattered) {
  using T = TypeParam;
  Guarded<T> x(9, 131, 3), y(5, 131, 2), z(9, 131, 1);
  x.random(1), z.fill(4);
  std::vector<int32_t> index = {8, 0, 3, 5, 2};
  Context context = cpu_context(2);
  gather_rows(context, x.view(), ids_of(index), y.view());
  scatter_rows(context, y.view(), ids_of(index), z.view());
  for (int64_t c = 0; c < 131; ++c) {
    for (size_t r = 0; r < index.size(); ++r) {
      ASSERT_EQ(y(static_cast<int64_t>(r), c), x(index[r], c));
      ASSERT_EQ(z(index[r], c), x(index[r], c));
    }
    ASSERT_EQ(z(1, c), 4);
  }
  EXPECT_TRUE(y.intact() && z.intact());
}

TYPED_TEST(Elementwise, SumOfSquaresIsExactInDoubleAndTheSameForAnyThreads) {
  using T = TypeParam;
  for (int64_t count : {0, 1, 1000, 16384, 16385, 100001, 5000001}) {
    std::vector<T> x(static_cast<size_t>(count));
    long double expected = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = cpu::convert<T>(static_cast<double>((i * 7919) % 1000) / 1000.0 - 0.3);
      const auto value = static_cast<long double>(cpu::widen(x[i]));
      expected += value * value;
    }
    std::vector<double> results;
    for (int threads : {1, 2, 3}) {
      Context context = cpu_context(threads);
      results.push_back(0);
      sum_of_squares(context, Tensor(x.data(), Shape{count}, dtype_of<T>),
                     Tensor(&results.back(), {1}, DType::f64));
    }
    EXPECT_NEAR(results[0], static_cast<double>(expected), static_cast<double>(expected) * 1e-13) << count;
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
}

/// Bits of a float type with that many exponent and mantissa bits, the slow and plain way.
uint16_t rounded_bits(double x, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint16_t sign = static_cast<uint16_t>(std::signbit(x) << (exponent_bits + mantissa_bits));
  const uint16_t infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  if (std::isinf(x)) return sign | infinity;
  if (x == 0) return sign;
  const int exponent = std::max(std::ilogb(x), 1 - bias);
  const double units = std::nearbyint(std::ldexp(std::fabs(x), mantissa_bits - exponent));
  // In units of the last place; 2^mantissa_bits is the implicit one of a normal number.
  const int magnitude = static_cast<int>(units) + ((exponent + bias - 1) << mantissa_bits);
  return sign | std::min<uint16_t>(infinity, static_cast<uint16_t>(std::min(magnitude, 0x7fff)));
}

std::vector<double> hard_values() {
  std::vector<double> values = {0.0,    -0.0,   1,       -1,     65504,    65519.99, 65520,    65536, -70000,
                                1e-8,   2.9e-8, 2.98e-8, 6.0e-5, 6.1e-5,   6.10e-5,  3.4e38,   1e39,  1e300,
                                -1e300, 1e-40,  1e-45,   1e-300, 5.96e-08, INFINITY, -INFINITY};
  const Rng rng(11, 1);
  for (uint64_t i = 0; i < 3000; ++i) {
    values.push_back(rng.normal(i) * std::pow(10.0, static_cast<double>(i % 20) - 10));
    // Halfway between two bf16 or f16 values, exactly and by a hair: where rounding twice goes wrong.
    const double half = 1 + (static_cast<double>(i % 512) + 0.5) / 128,
                 other = 1 + (static_cast<double>(i) + 0.5) / 1024;
    for (double hair : {-1e-12, 0.0, 1e-12}) values.insert(values.end(), {half + hair, other + hair});
  }
  return values;
}

TEST(Copy, RoundsToNearestEvenInOneStep) {
  std::vector<double> x = hard_values();
  std::vector<float> x32(x.begin(), x.end());
  const Shape shape{static_cast<int64_t>(x.size())};
  std::vector<uint16_t> y(x.size());
  Context context = cpu_context(2);
  struct Format {
    DType dtype;
    int exponent_bits, mantissa_bits;
  };
  for (const Format& f : {Format{DType::bf16, 8, 7}, Format{DType::f16, 5, 10}}) {
    copy(context, Tensor(x.data(), shape, DType::f64), Tensor(y.data(), shape, f.dtype));
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], rounded_bits(x[i], f.exponent_bits, f.mantissa_bits))
          << x[i] << " " << name_of(f.dtype);
    }
    copy(context, Tensor(x32.data(), shape, DType::f32), Tensor(y.data(), shape, f.dtype));
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], rounded_bits(x32[i], f.exponent_bits, f.mantissa_bits))
          << x32[i] << " " << name_of(f.dtype);
    }
  }
}

TEST(Copy, WidensEveryBitPatternAndBackAgain) {
  std::vector<uint16_t> all(65536), back(65536);
  std::iota(all.begin(), all.end(), uint16_t{0});
  std::vector<float> wide(65536);
  std::vector<double> wider(65536);
  Context context = cpu_context(2);
  const Shape shape{65536};
  for (DType dtype : {DType::bf16, DType::f16}) {
    copy(context, Tensor(all.data(), shape, dtype), Tensor(wide.data(), shape, DType::f32));
    copy(context, Tensor(all.data(), shape, dtype), Tensor(wider.data(), shape, DType::f64));
    const int exponent_bits = dtype == DType::bf16 ? 8 : 5, mantissa_bits = 15 - exponent_bits;
    for (size_t i = 0; i < all.size(); ++i) {
      const int exponent = (static_cast<int>(i) >> mantissa_bits) & ((1 << exponent_bits) - 1);
      const int mantissa = static_cast<int>(i) & ((1 << mantissa_bits) - 1);
      const int bias = (1 << (exponent_bits - 1)) - 1;
      double expected = exponent == 0
                            ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                            : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
      if (exponent == (1 << exponent_bits) - 1) expected = mantissa ? NAN : INFINITY;
      if (i & 0x8000) expected = -expected;
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(wide[i]) && std::isnan(wider[i]));
      } else {
        ASSERT_EQ(static_cast<double>(wide[i]), expected) << i;
        ASSERT_EQ(wider[i], expected) << i;
      }
    }
    copy(context, Tensor(wide.data(), shape, DType::f32), Tensor(back.data(), shape, dtype));
    for (size_t i = 0; i < all.size(); ++i) {
      if (std::isnan(wide[i])) {
        copy(context, Tensor(&back[i], Shape{1}, dtype), Tensor(&wide[i], Shape{1}, DType::f32));
        ASSERT_TRUE(std::isnan(wide[i]));
      } else {
        ASSERT_EQ(back[i], all[i]);
      }
    }
  }
}

/// Beyond the caches' size another way of storing, by whole lines: what lies before, behind and between
/// threads.
TEST(Copy, MovesWhatNoCacheHoldsFromAndToAnyAddress) {
  const int64_t bytes = (int64_t{32} << 20) + 4099;
  std::vector<uint8_t> x(static_cast<size_t>(bytes) + 64), y(x.size() + 128);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(1 + i % 251);
  for (int threads : {1, 3}) {
    Context context = cpu_context(threads);
    for (const auto& [from, to] : {std::pair{0, 64}, {0, 1}, {7, 63}, {13, 13}}) {
      std::ranges::fill(y, uint8_t{0});
      copy(context, Tensor(x.data() + from, Shape{bytes}, DType::u8),
           Tensor(y.data() + to, Shape{bytes}, DType::u8));
      const auto begin = y.begin() + to, end = begin + bytes;
      ASSERT_TRUE(std::equal(begin, end, x.begin() + from)) << threads << " " << from << " " << to;
      EXPECT_EQ(std::count(y.begin(), begin, 0) + std::count(end, y.end(), 0), std::ssize(y) - bytes);
    }
  }
}

TEST(Copy, MovesColumnViewsOfAnyDtype) {
  Guarded<float> x(7, 33, 4), y(7, 33, 2);
  Guarded<double> z(7, 33, 1);
  x.random(1);
  Context context = cpu_context(2);
  copy(context, x.view(), y.view());
  copy(context, x.view(), z.view());
  EXPECT_TRUE(same_bits(x.values(), y.values()));
  EXPECT_TRUE(same_bits(x.values(), z.values()));
  EXPECT_TRUE(y.intact() && z.intact());
  std::vector<int32_t> ids = {1, 2, 3}, others(3);
  copy(context, ids_of(ids), ids_of(others));
  EXPECT_EQ(ids, others);
}

}  // namespace
}  // namespace ptrain
