// The kernels of 8-bit floats against the formats' definition, decoded here bit by bit.
#include "kernels/ops/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/cuda/quantize.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                 inf = std::numeric_limits<double>::infinity();

/// The value of a finite code without its sign.
double value_of(int code, DType format) {
  const int mantissa_bits = format == DType::f8_e4m3 ? 3 : 2, bias = format == DType::f8_e4m3 ? 7 : 15;
  const int exponent = code >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  if (exponent == 0) return std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

/// The nearest code by trying all of them, the even one on a tie.
uint8_t code_of(float x, DType format) {
  if (std::isnan(x)) return 0x7f;
  const int largest = format == DType::f8_e4m3 ? 0x7e : 0x7b;
  const double magnitude = std::fmin(std::fabs(static_cast<double>(x)), value_of(largest, format));
  int best = 0;
  for (int code = 1; code <= largest; ++code) {
    const double is = std::fabs(value_of(code, format) - magnitude);
    const double was = std::fabs(value_of(best, format) - magnitude);
    if (is < was || (is == was && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

Tensor as(Tensor x, DType dtype) {
  x.dtype = dtype;
  return x;
}

/// y and its transpose as bytes, expected on the CPU's side.
struct Outputs {
  TwinTensor y, transposed;

  Outputs(TestDevice& device, int64_t N, int64_t C, int64_t gap)
      : y(device, {N, C}, DType::u8, gap), transposed(device, {C, N}, DType::u8, gap) {}

  void expect(const std::vector<double>& x, float scale, DType format) {
    const Tensor to = y.cpu(), to_t = transposed.cpu();
    for (int64_t n = 0; n < to.rows(); ++n) {
      for (int64_t c = 0; c < to.columns(); ++c) {
        const float value = static_cast<float>(x[static_cast<size_t>(n * to.columns() + c)]) * scale;
        const uint8_t code = code_of(value, format);
        to.as<uint8_t>()[n * to.row_stride + c] = code;
        to_t.as<uint8_t>()[c * to_t.row_stride + n] = code;
      }
    }
  }
};

class QuantizeTwins : public testing::TestWithParam<std::tuple<DType, DType>> {};

TEST_P(QuantizeTwins, EveryElementAndItsTransposeIsTheNearestCode) {
  const auto& [dtype, format] = GetParam();
  TestDevice device;
  struct Case {
    int64_t N, C, gap;
  };
  // Whole tiles, tiles cut in both directions, runs for vectors and odd addresses.
  for (const Case& c : {Case{1, 1, 0}, {16, 8, 0}, {3, 70, 1}, {144, 72, 0}, {128, 64, 16}, {131, 67, 3}}) {
    TwinTensor x(device, {c.N, c.C}, dtype, c.gap), scale(device, {1}, DType::f32);
    Outputs out(device, c.N, c.C, c.gap);
    x.random(1, 100), scale.fill(2.5);
    out.expect(x.values(), 2.5f, format);
    quantize(device.gpu(), x.gpu(), scale.gpu(), as(out.y.gpu(), format), as(out.transposed.gpu(), format));
    EXPECT_TRUE(out.y.same_bits()) << c.N << " " << c.C;
    EXPECT_TRUE(out.transposed.same_bits()) << c.N << " " << c.C;
    EXPECT_TRUE(x.same_bits());
  }
}

TEST_P(QuantizeTwins, TiesLimitsAndWhatIsNoNumber) {
  const auto& [dtype, format] = GetParam();
  TestDevice device;
  std::vector<double> values = {0, 448, 464, 480, 57344, 60000, 61440, 65504, inf, nan};
  for (int code = 0; code < 0x7b; ++code) {
    const double a = value_of(code, format), b = value_of(code + 1, format);
    for (double x : {a, (a + b) / 2, a + 0.49 * (b - a), a + 0.51 * (b - a)}) values.push_back(x);
  }
  const size_t positive = values.size();
  for (size_t i = 0; i < positive; ++i)
    if (!std::isnan(values[i])) values.push_back(-values[i]);
  const auto count = static_cast<int64_t>(values.size());
  TwinTensor x(device, {1, count}, dtype), scale(device, {1}, DType::f32);
  Outputs out(device, 1, count, 0);
  x.set(values), scale.fill(1);
  out.expect(x.values(), 1, format);
  quantize(device.gpu(), x.gpu(), scale.gpu(), as(out.y.gpu(), format), as(out.transposed.gpu(), format));
  EXPECT_TRUE(out.y.same_bits());
  EXPECT_TRUE(out.transposed.same_bits());
}

TEST_P(QuantizeTwins, EitherOutputMayBeMissing) {
  const auto& [dtype, format] = GetParam();
  TestDevice device;
  for (int64_t N : {13, 160}) {
    TwinTensor x(device, {N, 72}, dtype), scale(device, {1}, DType::f32);
    Outputs out(device, N, 72, 0);
    x.random(2), scale.fill(64);
    out.expect(x.values(), 64, format);
    quantize(device.gpu(), x.gpu(), scale.gpu(), as(out.y.gpu(), format), {});
    EXPECT_TRUE(out.y.same_bits());
    quantize(device.gpu(), x.gpu(), scale.gpu(), {}, as(out.transposed.gpu(), format));
    EXPECT_TRUE(out.transposed.same_bits());
  }
}

TEST_P(QuantizeTwins, TheCpuWritesTheSameBytesWithTheSameScale) {
  const auto& [dtype, format] = GetParam();
  TestDevice device;
  TwinTensor x(device, {50, 72}, dtype, 8), amax(device, {1}, DType::f32), scale(device, {1}, DType::f32),
      y(device, {50, 72}, format), transposed(device, {72, 50}, format);
  x.random(4, 3), amax.fill(0);
  for (Context* context : {&device.cpu(), &device.gpu()}) {
    const bool is_cpu = context == &device.cpu();
    const auto on = [&](TwinTensor& t) { return is_cpu ? t.cpu() : t.gpu(); };
    update_amax(*context, on(x), on(amax));
    scale_of_amax(*context, on(amax), format, 1, on(scale));
    quantize(*context, on(x), on(scale), on(y), on(transposed));
  }
  EXPECT_TRUE(amax.same_bits() && scale.same_bits());
  EXPECT_TRUE(y.same_bits());
  EXPECT_TRUE(transposed.same_bits());
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizeTwins,
                         testing::Combine(testing::Values(DType::f32, DType::bf16, DType::f16),
                                          testing::Values(DType::f8_e4m3, DType::f8_e5m2)));

class AmaxTwins : public testing::TestWithParam<DType> {};

TEST_P(AmaxTwins, IsTheLargestMagnitudeOverAnyShapeAndOrder) {
  TestDevice device;
  struct Case {
    int64_t N, C, gap;
  };
  for (const Case& c : {Case{1, 1, 0}, {3, 7, 2}, {9, 64, 8}, {5, 1000, 0}, {70, 129, 0}}) {
    TwinTensor x(device, {c.N, c.C}, GetParam(), c.gap), amax(device, {1}, DType::f32);
    x.random(3);
    double expected = 0;
    for (double value : x.values()) expected = std::max(expected, std::fabs(value));
    for (uint64_t seed : {1, 2, 3}) {
      shuffle_order(seed);
      amax.fill(0.01);
      update_amax(device.gpu(), x.gpu(), amax.gpu());
      EXPECT_EQ(amax.values()[0], std::max(expected, static_cast<double>(0.01f)));
    }
    // What was larger before stays.
    amax.fill(1000);
    update_amax(device.gpu(), x.gpu(), amax.gpu());
    EXPECT_EQ(amax.values()[0], 1000);
  }
}

TEST_P(AmaxTwins, WhatIsNotFiniteCountsAsInfinity) {
  TestDevice device;
  for (double bad : {nan, inf, -inf}) {
    TwinTensor x(device, {40, 130}, GetParam()), amax(device, {1}, DType::f32);
    std::vector<double> values(40 * 130, 0.5);
    values[3217] = bad;
    x.set(values), amax.fill(0);
    update_amax(device.gpu(), x.gpu(), amax.gpu());
    EXPECT_EQ(amax.values()[0], inf);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, AmaxTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

TEST(QuantizeScaleTwins, BringsTheLargestMagnitudeToTheLargestValue) {
  TestDevice device;
  struct Case {
    double amax;
    DType format;
    int margin;
    double expected;
  };
  for (const Case& c : {Case{2, DType::f8_e4m3, 0, 224},
                        {2, DType::f8_e5m2, 1, 14336},
                        {448, DType::f8_e4m3, 3, 0.125},
                        {3, DType::f8_e4m3, 0, static_cast<double>(448.0f / 3.0f)},
                        {0, DType::f8_e4m3, 0, 1},
                        {inf, DType::f8_e5m2, 0, 1},
                        {nan, DType::f8_e5m2, 0, 1},
                        {1e-40, DType::f8_e4m3, 0, std::numeric_limits<float>::max()}}) {
    TwinTensor amax(device, {1}, DType::f32), scale(device, {1}, DType::f32),
        inverses(device, {2}, DType::f32);
    amax.fill(c.amax), scale.fill(7), inverses.fill(7);
    scale_of_amax(device.gpu(), amax.gpu(), c.format, c.margin, scale.gpu());
    EXPECT_EQ(scale.values()[0], c.expected) << c.amax;
    amax.fill(4);
    cuda::invert_scales(device.gpu(), scale.gpu(), amax.gpu(), inverses.gpu());
    EXPECT_EQ(inverses.values()[0], 1 / static_cast<float>(c.expected));
    EXPECT_EQ(inverses.values()[1], 0.25);
  }
}

}  // namespace
}  // namespace ptrain
