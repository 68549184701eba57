// 8-bit floats: every code, every rounding, scales, and products of quantised operands.
#include "kernels/ops/quantize.h"

#include <gtest/gtest.h>

#include <cfloat>

#include "kernels/ops/elementwise.h"
#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

using cpu::Float8E4M3;
using cpu::Float8E5M2;

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Q>
constexpr bool is_e4m3 = std::is_same_v<Q, Float8E4M3>;

/// What the format says of a code, from its fields.
template <class Q>
double value_of(int code) {
  constexpr int mantissa_bits = is_e4m3<Q> ? 3 : 2, bias = is_e4m3<Q> ? 7 : 15;
  constexpr int exponents = 1 << (7 - mantissa_bits);
  const int exponent = (code & 0x7f) >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  double magnitude = exponent == 0
                         ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                         : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  if (is_e4m3<Q> && (code & 0x7f) == 0x7f) magnitude = std::nan("");
  if (!is_e4m3<Q> && exponent == exponents - 1) magnitude = mantissa ? std::nan("") : infinity;
  return code & 0x80 ? -magnitude : magnitude;
}

/// copy() of one number to an 8-bit float.
template <class Q, class From>
int code_of(From x) {
  Q to{};
  Context context;
  copy(context, Tensor(&x, {1}, dtype_of<From>), Tensor(&to, {1}, dtype_of<Q>));
  return to.bits;
}

template <class Q>
class Float8 : public testing::Test {};
using Formats = testing::Types<Float8E4M3, Float8E5M2>;
TYPED_TEST_SUITE(Float8, Formats);

TYPED_TEST(Float8, EveryCodeHasItsValueAndComesBack) {
  using Q = TypeParam;
  std::vector<Q> codes;
  for (int code = 0; code < 256; ++code) codes.push_back({static_cast<uint8_t>(code)});
  std::vector<float> wide(256);
  std::vector<double> wider(256);
  Context context = cpu_context(2);
  const Tensor all(codes.data(), {256}, dtype_of<Q>);
  copy(context, all, Tensor(wide.data(), {256}, DType::f32));
  copy(context, all, Tensor(wider.data(), {256}, DType::f64));
  for (int code = 0; code < 256; ++code) {
    const double expected = value_of<Q>(code);
    const auto at = static_cast<size_t>(code);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(wide[at]) && std::isnan(wider[at])) << code;
      EXPECT_TRUE(std::isnan(value_of<Q>(code_of<Q>(wide[at])))) << code;
      continue;
    }
    EXPECT_EQ(wider[at], expected) << code;
    EXPECT_EQ(static_cast<double>(wide[at]), expected) << code;
    if (std::isinf(expected)) continue;
    EXPECT_EQ(code_of<Q>(wide[at]), code);
    EXPECT_EQ(code_of<Q>(wider[at]), code);
  }
}

TYPED_TEST(Float8, RoundsToNearestEvenBetweenAllNeighbours) {
  using Q = TypeParam;
  int pairs = 0;
  for (int code = 0; std::isfinite(value_of<Q>(code + 1)); ++code, ++pairs) {
    const double low = value_of<Q>(code), high = value_of<Q>(code + 1), middle = (low + high) / 2;
    const double hair = (high - low) * 1e-5;
    const int even = code % 2 == 0 ? code : code + 1;
    for (int sign : {0, 0x80}) {
      const double s = sign ? -1 : 1;
      EXPECT_EQ(code_of<Q>(s * middle), even | sign) << middle;
      EXPECT_EQ(code_of<Q>(static_cast<float>(s * middle)), even | sign) << middle;
      EXPECT_EQ(code_of<Q>(static_cast<float>(s * (middle - hair))), code | sign) << middle;
      EXPECT_EQ(code_of<Q>(static_cast<float>(s * (middle + hair))), (code + 1) | sign) << middle;
      // By less than f32 resolves: rounding twice would end at the even one.
      EXPECT_EQ(code_of<Q>(s * middle * (1 - 1e-12)), code | sign) << middle;
      EXPECT_EQ(code_of<Q>(s * middle * (1 + 1e-12)), (code + 1) | sign) << middle;
    }
  }
  EXPECT_EQ(pairs, is_e4m3<Q> ? 126 : 123);
}

TYPED_TEST(Float8, SaturatesAndKeepsNotANumber) {
  using Q = TypeParam;
  const double largest = largest_of(dtype_of<Q>);
  const int code = code_of<Q>(largest);
  EXPECT_EQ(value_of<Q>(code), largest);
  EXPECT_FALSE(std::isfinite(value_of<Q>(code + 1)));
  for (double x : {largest * 1.01, largest * 1.2, 1e6, 3e38, infinity}) {
    EXPECT_EQ(code_of<Q>(static_cast<float>(x)), code) << x;
    EXPECT_EQ(code_of<Q>(static_cast<float>(-x)), code | 0x80) << x;
    EXPECT_EQ(code_of<Q>(x), code) << x;
  }
  EXPECT_TRUE(std::isnan(value_of<Q>(code_of<Q>(std::nanf("")))));
  EXPECT_EQ(code_of<Q>(-0.0f), 0x80);
  EXPECT_EQ(code_of<Q>(1e-30f), 0);
}

template <class S, class Q>
void expect_quantized(int64_t N, int64_t C, int64_t gap) {
  Guarded<S> x(N, C, gap);
  Guarded<Q> y(N, C, gap), y_t(C, N, gap), alone(N, C), alone_t(C, N);
  Guarded<float> scale(1, 1);
  x.random(1, 3), scale.fill(37);
  Context context = cpu_context(2);
  quantize(context, x.view(), scale.view(Shape{1}), y.view(), y_t.view());
  quantize(context, x.view(), scale.view(Shape{1}), alone.view(), {});
  quantize(context, x.view(), scale.view(Shape{1}), {}, alone_t.view());
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t c = 0; c < C; ++c) {
      const double expected = value_of<Q>(code_of<Q>(static_cast<float>(x(n, c)) * 37.0f));
      ASSERT_EQ(y(n, c), expected);
      ASSERT_EQ(y_t(c, n), expected);
      ASSERT_EQ(alone(n, c), expected);
      ASSERT_EQ(alone_t(c, n), expected);
    }
  }
  EXPECT_TRUE(y.intact() && y_t.intact() && alone.intact() && alone_t.intact());
}

template <class S>
class Quantize : public testing::Test {};
using QuantizedTypes = testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(Quantize, QuantizedTypes);

TYPED_TEST(Quantize, WritesTheScaledTensorAndItsTranspose) {
  for (int64_t N : {1, 7, 64, 131}) {
    for (int64_t C : {1, 33, 200}) {
      for (int64_t gap : {0, 3}) {
        expect_quantized<TypeParam, Float8E4M3>(N, C, gap);
        expect_quantized<TypeParam, Float8E5M2>(N, C, gap);
      }
    }
  }
}

TYPED_TEST(Quantize, AmaxGrowsAndIsInfiniteWhereOneElementIsNotFinite) {
  using S = TypeParam;
  for (int64_t N : {1, 3, 700}) {
    for (int threads : {1, 2, 3}) {
      Guarded<S> x(N, 133, 5);
      Guarded<float> amax(1, 1);
      x.random(1), amax.fill(0);
      double largest = 0;
      for (double value : x.values()) largest = std::max(largest, std::fabs(value));
      Context context = cpu_context(threads);
      update_amax(context, x.view(), amax.view(Shape{1}));
      EXPECT_EQ(amax(0, 0), largest);
      amax.fill(1000);
      update_amax(context, x.view(), amax.view(Shape{1}));
      EXPECT_EQ(amax(0, 0), 1000);
      for (double bad : {infinity, -infinity, std::nan("")}) {
        amax.fill(1);
        x.at(N / 2, 130) = cpu::convert<S>(bad);
        update_amax(context, x.view(), amax.view(Shape{1}));
        EXPECT_EQ(amax(0, 0), infinity) << bad;
      }
      Guarded<S> nothing(0, 7);
      amax.fill(2);
      update_amax(context, nothing.view(), amax.view(Shape{1}));
      EXPECT_EQ(amax(0, 0), 2);
    }
  }
}

TEST(ScaleOfAmax, MapsTheLargestMagnitudeToTheLargestNumber) {
  struct Case {
    float amax;
    DType dtype;
    int margin;
    double expected;
  };
  for (const Case& c :
       {Case{448, DType::f8_e4m3, 0, 1}, Case{7, DType::f8_e4m3, 0, 64}, Case{7, DType::f8_e4m3, 3, 8},
        Case{7, DType::f8_e4m3, -1, 128}, Case{2, DType::f8_e5m2, 0, 28672}, Case{0, DType::f8_e5m2, 0, 1},
        Case{INFINITY, DType::f8_e4m3, 0, 1}, Case{NAN, DType::f8_e4m3, 2, 1},
        Case{1e-40f, DType::f8_e4m3, 0, static_cast<double>(FLT_MAX)}}) {
    float amax = c.amax, scale = -1;
    Context context = cpu_context();
    scale_of_amax(context, Tensor(&amax, {1}, DType::f32), c.dtype, c.margin,
                  Tensor(&scale, {1}, DType::f32));
    EXPECT_EQ(static_cast<double>(scale), c.expected) << c.amax << " " << c.margin;
  }
}

template <class A, class B, class C>
void expect_product(int64_t N, int64_t K, int64_t O, Write write) {
  Guarded<A> a(N, K, 3);
  Guarded<B> b(O, K, 1);
  Guarded<C> y(N, O, 2);
  Guarded<float> a_scale(1, 1), b_scale(1, 1);
  a.random(1, 20), b.random(2, 300), a_scale.fill(1600), b_scale.fill(0.3);
  if (write == Write::accumulate) y.random(3, 100);
  std::vector<double> expected;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t o = 0; o < O; ++o) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += a(n, k) * b(o, k);
      expected.push_back(sum / (a_scale(0, 0) * b_scale(0, 0)) + (write == Write::accumulate ? y(n, o) : 0));
    }
  }
  Context context = cpu_context(2);
  linear_quantized(context, a.view(), a_scale.view(Shape{1}), b.view(), b_scale.view(Shape{1}), y.view(),
                   write);
  EXPECT_TRUE(close(y.values(), expected, tolerance::dot<C>(K))) << N << " " << K << " " << O;
  EXPECT_TRUE(y.intact());
}

TYPED_TEST(Quantize, ProductsUndoBothScales) {
  using C = TypeParam;
  for (Write write : {Write::overwrite, Write::accumulate}) {
    expect_product<Float8E4M3, Float8E4M3, C>(1, 7, 3, write);
    expect_product<Float8E4M3, Float8E4M3, C>(67, 130, 33, write);
    expect_product<Float8E5M2, Float8E4M3, C>(33, 700, 65, write);
    expect_product<Float8E4M3, Float8E5M2, C>(600, 30, 200, write);
    expect_product<Float8E5M2, Float8E5M2, C>(5, 64, 16, write);
  }
}

TEST(QuantizeRefuses, WhatItCannotWrite) {
  Guarded<float> x(2, 3), scale(1, 1), y(2, 2);
  Guarded<double> wide(2, 2);
  Guarded<Float8E4M3> a(2, 3), b(2, 3);
  Guarded<Float8E5M2> a_t(3, 2);
  Context context = cpu_context();
  const Tensor s = scale.view(Shape{1});
  EXPECT_THROW(quantize(context, x.view(), s, {}, {}), Error);
  EXPECT_THROW(quantize(context, x.view(), s, a.view(), a_t.view()), Error);
  EXPECT_THROW(quantize(context, x.view(), s, x.view(), {}), Error);
  EXPECT_THROW(scale_of_amax(context, s, DType::bf16, 0, s), Error);
  EXPECT_THROW(linear_quantized(context, a.view(), s, b.view(), s, wide.view()), Error);
  EXPECT_THROW(linear_quantized(context, x.view(), s, b.view(), s, y.view()), Error);
}

}  // namespace
}  // namespace ptrain
