// Stochastic rounding: only neighbours, the right mean, and nothing strange at the ends.
#include "kernels/ops/stochastic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "kernels/base/float16.h"

namespace ptrain {
namespace {

/// One 16-bit format.
struct Format {
  const char* name;
  uint16_t (*round)(float, uint32_t);
  double (*value)(uint16_t);
  int mantissa_bits;
};
const Format formats[] = {
    {"bf16", [](float x, uint32_t random) { return stochastic_bf16(x, random); },
     [](uint16_t bits) { return static_cast<double>(widen(BFloat16{bits})); }, 7},
    {"f16", [](float x, uint32_t random) { return stochastic_f16(x, random); },
     [](uint16_t bits) { return static_cast<double>(widen(Float16{bits})); }, 10},
};

TEST(StochasticRounding, NumbersOfTheFormatStay) {
  for (const Format& format : formats) {
    for (uint32_t bits = 0; bits < 0x10000u; bits += 3) {
      const double value = format.value(static_cast<uint16_t>(bits));
      if (std::isnan(value)) continue;
      for (uint32_t random : {0u, 0x80000000u, 0xffffffffu}) {
        EXPECT_EQ(format.round(static_cast<float>(value), random), bits) << format.name;
      }
    }
  }
}

TEST(StochasticRounding, OthersBecomeOneOfTheirNeighboursWithTheRightMean) {
  constexpr int draws = 20000;
  for (const Format& format : formats) {
    for (float x : {1.0f / 3, -2.7182817f, 1.0009f, 1e-5f, -3e-6f, 1e-7f, 60001.0f}) {
      double mean = 0, lowest = INFINITY, highest = -INFINITY;
      for (uint64_t i = 0; i < draws; ++i) {
        const double value = format.value(format.round(x, rounding_bits(9, i)));
        mean += value / draws;
        lowest = std::min(lowest, value), highest = std::max(highest, value);
      }
      const double exact = static_cast<double>(x), gap = highest - lowest;
      EXPECT_LE(lowest, exact);
      EXPECT_GE(highest, exact);
      // Neighbours: a step of the mantissa, or of f16's smallest numbers.
      const double step = std::ldexp(std::fabs(exact), -format.mantissa_bits);
      EXPECT_LE(gap, std::max(step, 0x1p-24)) << format.name << " " << x;
      const double chance = (exact - lowest) / gap;
      EXPECT_NEAR(mean, exact, 4 * gap * std::sqrt(chance * (1 - chance) / draws)) << format.name << " " << x;
    }
  }
}

TEST(StochasticRounding, InfinityAndNotANumberStay) {
  for (const Format& format : formats) {
    for (uint32_t random : {0u, 0xffffffffu}) {
      EXPECT_EQ(format.value(format.round(INFINITY, random)), INFINITY);
      EXPECT_EQ(format.value(format.round(-INFINITY, random)), -INFINITY);
      EXPECT_TRUE(std::isnan(format.value(format.round(std::nanf(""), random))));
      EXPECT_TRUE(std::isnan(format.value(format.round(std::bit_cast<float>(0x7f800001u), random))));
      EXPECT_TRUE(std::signbit(format.value(format.round(-0.0f, random))));
    }
  }
  EXPECT_EQ(stochastic_f16(1e6f, 0), 0x7c00u);
}

TEST(StochasticRounding, BitsDifferBySeedAndIndex) {
  std::set<uint32_t> seen;
  for (uint64_t seed = 0; seed < 50; ++seed)
    for (uint64_t index = 0; index < 50; ++index) seen.insert(rounding_bits(seed, index));
  EXPECT_GE(seen.size(), 2499u);  // 2500 draws of 2^32: a collision in one test of 1400
  int ones = 0;
  for (uint64_t i = 0; i < 10000; ++i) ones += std::popcount(rounding_bits(1, i));
  EXPECT_NEAR(ones, 160000, 4 * 283);
}

}  // namespace
}  // namespace ptrain
