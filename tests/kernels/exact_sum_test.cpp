// Sums of squares in integers against integers of 128 bits, and their independence of every order.
#include "kernels/ops/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>

#include "kernels/ops/adamw.h"
#include "kernels/ops/elementwise.h"
#include "tests/kernels/guarded.h"
#include "tests/support/close.h"

namespace ptrain {
namespace {

using Bins = std::vector<int64_t>;
__extension__ using Integer = unsigned __int128;
__extension__ using Quad = __float128;

Tensor bins_of(Bins& bins) {
  return Tensor(bins.data(), {exact_bins, 2}, DType::i64);
}
template <class T>
Tensor elements_of(std::vector<T>& x) {
  return Tensor(x.data(), {std::ssize(x)}, dtype_of<T>);
}

template <class T>
Bins summed(std::vector<T>& x, int threads = 1) {
  Bins bins(2 * exact_bins, -7);
  Context context = cpu_context(threads);
  exact_sum_of_squares(context, elements_of(x), bins_of(bins), Write::overwrite);
  return bins;
}
double total_of(Bins bins) {
  double total = -1;
  Context context = cpu_context();
  exact_total(context, bins_of(bins), Tensor(&total, {1}, DType::f64));
  return total;
}

/// What each bin stands for; of the last one the two counts, apart.
std::vector<Integer> values_of(const Bins& bins) {
  std::vector<Integer> values;
  for (size_t e = 0; e < exact_bins; ++e) {
    EXPECT_TRUE(bins[2 * e] >= 0 && bins[2 * e + 1] >= 0) << e;
    values.push_back((static_cast<Integer>(bins[2 * e + 1]) << (e < 255 ? 24 : 64)) +
                     static_cast<Integer>(bins[2 * e]));
  }
  return values;
}

template <class T>
std::vector<Integer> plain_values(const std::vector<T>& x) {
  std::vector<Integer> values(exact_bins);
  for (const T element : x) {
    const auto value = cpu::convert<float>(element);
    if (std::isinf(value)) {
      values[255] += 1;
    } else if (std::isnan(value)) {
      values[255] += Integer{1} << 64;
    } else if (value != 0) {
      const int e = std::max(std::ilogb(value) + 127, 0), lowest = std::max(e, 1) - 150;
      const auto m = static_cast<uint64_t>(std::ldexp(std::fabs(static_cast<double>(value)), -lowest));
      values[static_cast<size_t>(e)] += static_cast<Integer>(m) * m;
    }
  }
  return values;
}

/// The total of plain_values in 113 bits.
double plain_total(const std::vector<Integer>& values) {
  Quad sum = 0;
  for (int e = 0; e < 255; ++e) {
    Quad value = static_cast<Quad>(values[static_cast<size_t>(e)]);
    value *= static_cast<Quad>(std::ldexp(1.0, 2 * (std::max(e, 1) - 150)));
    sum += value;
  }
  return static_cast<double>(sum);
}

/// Any bits that are finite, of either sign, zeros and subnormals among them; every tenth a normal number.
template <class T>
std::vector<T> any_finite(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> x;
  while (std::ssize(x) < count) {
    std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t> bits = 0;
    bits = static_cast<decltype(bits)>(random());
    const T value = std::ssize(x) % 10 == 0 ? cpu::convert<T>(normal(random)) : std::bit_cast<T>(bits);
    if (std::isfinite(cpu::widen(value))) x.push_back(value);
  }
  for (size_t i = 3; i < x.size(); i += 11) x[i] = cpu::convert<T>(0.0 * cpu::widen(x[i]));
  return x;
}

template <class T>
class ExactSum : public testing::Test {};
using Summed = testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(ExactSum, Summed);

TYPED_TEST(ExactSum, BinsHoldTheIntegersAndTheTotalIsWithinItsBound) {
  for (const int64_t count : {0, 1, 3, 4, 1000, 65536, 65537, 300'001}) {
    std::vector<TypeParam> x = any_finite<TypeParam>(count, 5);
    const std::vector<Integer> expected = plain_values(x);
    for (int threads : {1, 2, 3, 5}) EXPECT_TRUE(values_of(summed(x, threads)) == expected) << count;
    const double total = total_of(summed(x)), oracle = plain_total(expected);
    EXPECT_LE(std::fabs(total - oracle), 0x1p-44 * oracle) << count;
  }
}

TYPED_TEST(ExactSum, OrdersCutsThreadsAndRanksDoNotChangeABitOfTheTotal) {
  std::vector<TypeParam> x = any_finite<TypeParam>(200'003, 9);
  const double expected = total_of(summed(x));
  std::mt19937 random(3);
  for (int trial = 0; trial < 6; ++trial) {
    std::shuffle(x.begin(), x.end(), random);
    // Some ranks, each with some calls over parts of its share, on some threads.
    const int64_t ranks = 1 + trial, count = std::ssize(x);
    Bins all(2 * exact_bins);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Bins mine(2 * exact_bins);
      Context context = cpu_context(1 + trial % 3);
      const int64_t begin = count * rank / ranks, end = count * (rank + 1) / ranks,
                    middle = (begin + end) / 3;
      for (auto [from, to] :
           {std::pair{begin, std::max(begin, middle)}, std::pair{std::max(begin, middle), end}})
        exact_sum_of_squares(context, Tensor(x.data() + from, {to - from}, dtype_of<TypeParam>),
                             bins_of(mine));
      for (size_t i = 0; i < all.size(); ++i) all[i] += mine[i];
    }
    EXPECT_EQ(total_of(all), expected) << ranks << " ranks";
  }
}

TYPED_TEST(ExactSum, InfinitiesAndNansAreSeenAndToldApart) {
  const auto infinity = cpu::convert<TypeParam>(INFINITY), negative = cpu::convert<TypeParam>(-INFINITY),
             nan = cpu::convert<TypeParam>(NAN);
  for (const int64_t count : {1, 7, 70'001}) {
    std::vector<TypeParam> x = any_finite<TypeParam>(count, 1);
    x[static_cast<size_t>(count / 2)] = negative;
    EXPECT_EQ(total_of(summed(x, 2)), INFINITY);
    EXPECT_TRUE(values_of(summed(x)) == plain_values(x));
    x.back() = nan;
    EXPECT_TRUE(std::isnan(total_of(summed(x, 2))));
    EXPECT_TRUE(values_of(summed(x)) == plain_values(x));
  }
  // As integers, the squares of four NaNs are those of nine infinities.
  std::vector<TypeParam> nans(4, nan), infinities(9, infinity);
  EXPECT_TRUE(std::isnan(total_of(summed(nans))));
  EXPECT_EQ(total_of(summed(infinities)), INFINITY);
}

TEST(ExactSumOfFloats, IsNotTheSumInFloatingPoint) {
  // The test's numbers are worth something: in f64 another order gives another sum.
  std::vector<float> x;
  for (int i = 0; i < 5000; ++i) x.push_back(std::ldexp(1.0f + static_cast<float>(i % 97) / 128, i % 40));
  double up = 0, down = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    up += static_cast<double>(x[i]) * static_cast<double>(x[i]) / 3;
    down += static_cast<double>(x[x.size() - 1 - i]) * static_cast<double>(x[x.size() - 1 - i]) / 3;
  }
  EXPECT_NE(up, down);
  const double total = total_of(summed(x));
  std::reverse(x.begin(), x.end());
  EXPECT_EQ(total_of(summed(x)), total);
}

TEST(ExactSumOfFloats, LeavesNeitherEndOfTheRange) {
  const float largest = std::numeric_limits<float>::max(),
              smallest = std::numeric_limits<float>::denorm_min();
  std::vector<float> high(100'000, largest), low(100'000, smallest);
  const double square = static_cast<double>(largest) * static_cast<double>(largest);
  EXPECT_LE(std::fabs(total_of(summed(high, 2)) - 1e5 * square), 1e5 * square * 0x1p-44);
  EXPECT_EQ(total_of(summed(low, 2)), 1e5 * 0x1p-298);
}

TEST(ExactSumOfFloats, ThereIsRoomForTwoToThe38Elements) {
  // As if every element had the largest significand and left all it can in the lower half.
  constexpr int64_t elements = int64_t{1} << 38, largest = (1 << 24) - 1;
  Bins bins(2 * exact_bins);
  bins[2 * 127] = elements * largest;
  bins[2 * 127 + 1] = elements * largest;
  ASSERT_GT(bins[2 * 127], 0);
  const Quad expected =
      static_cast<Quad>(elements) * static_cast<Quad>(largest) * static_cast<Quad>(largest + 2);
  const double oracle = static_cast<double>(expected) * 0x1p-46;
  EXPECT_LE(std::fabs(total_of(bins) - oracle), 0x1p-44 * oracle);
  // Another parting of the same numbers.
  const double total = total_of(bins);
  bins[2 * 127 + 1] += bins[2 * 127] >> 24;
  bins[2 * 127] &= 0xffffff;
  EXPECT_EQ(total_of(bins), total);
}

TEST(ExactSumOfFloats, BinsAreAddedToOrReplaced) {
  std::vector<float> x = {3, -4};
  Bins bins(2 * exact_bins);
  Context context = cpu_context();
  exact_sum_of_squares(context, elements_of(x), bins_of(bins));
  exact_sum_of_squares(context, elements_of(x), bins_of(bins), Write::accumulate);
  EXPECT_EQ(total_of(bins), 50);
  exact_sum_of_squares(context, elements_of(x), bins_of(bins), Write::overwrite);
  EXPECT_EQ(total_of(bins), 25);
}

TEST(ExactSumOfFloats, ItsTotalMakesTheClipFactor) {
  std::vector<float> x = {3, -4};
  double sums[2] = {1.5, 0}, factor = 0;
  Context context = cpu_context();
  const auto decide = [&] {
    Bins bins = summed(x);
    exact_total(context, bins_of(bins), Tensor(sums + 1, {1}, DType::f64));
    gradient_scale(context, Tensor(sums, {2}, DType::f64), 1, 2, Tensor(&factor, {1}, DType::f64));
    return factor;
  };
  EXPECT_EQ(decide(), 1 / (2.5 + 1e-6) / 2);
  x[0] = NAN;
  EXPECT_TRUE(std::isnan(decide()));
}

TEST(ExactSumErrors, TensorsThatDoNotFitAreRefused) {
  Context context = cpu_context();
  std::vector<float> x(6);
  std::vector<double> wide(6);
  Bins bins(2 * exact_bins), few(2 * exact_bins - 2);
  const Tensor columns = Tensor(x.data(), {2, 3}, DType::f32).column_range(0, 2);
  double total = 0;
  float narrow = 0;
  EXPECT_THROW(exact_sum_of_squares(context, elements_of(wide), bins_of(bins)), Error);
  EXPECT_THROW(exact_sum_of_squares(context, columns, bins_of(bins)), Error);
  EXPECT_THROW(exact_sum_of_squares(context, elements_of(x), elements_of(few)), Error);
  EXPECT_THROW(exact_total(context, elements_of(few), Tensor(&total, {1}, DType::f64)), Error);
  EXPECT_THROW(exact_total(context, bins_of(bins), Tensor(&narrow, {1}, DType::f32)), Error);
}

}  // namespace
}  // namespace ptrain
