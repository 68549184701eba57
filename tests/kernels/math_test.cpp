// The vectorised exponential against the library's.
#include "kernels/cpu/math.h"

#include <gtest/gtest.h>

#include <limits>

namespace ptrain::cpu {
namespace {

TEST(VectorExp, IsWithinTwoUnitsInTheLastPlaceEverywhere) {
  double worst = 0;
  float at = 0;
  for (double x = -87.3; x < 88.36; x += 1.7e-4) {
    const float argument = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(argument));
    const double spacing = std::ldexp(1.0, std::ilogb(exact) - 23);
    const double error = std::fabs(static_cast<double>(vector_exp(argument)) - exact) / spacing;
    if (error > worst) worst = error, at = argument;
  }
  EXPECT_LE(worst, 2.0) << "at " << at;
}

TEST(VectorExp, KeepsItsPromisesAtTheEdges) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(vector_exp(0.0f), 1.0f);
  EXPECT_EQ(vector_exp(-0.0f), 1.0f);
  EXPECT_EQ(vector_exp(-infinity), 0.0f);
  EXPECT_EQ(vector_exp(-1000.0f), 0.0f);
  EXPECT_GT(vector_exp(infinity), 2e38f);
  EXPECT_TRUE(std::isfinite(vector_exp(200.0f)));
  EXPECT_TRUE(std::isnan(vector_exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Sigmoid, IsSymmetricAndSaturates) {
  for (float x : {0.0f, 0.1f, 1.0f, 7.0f, 20.0f, 88.0f, 300.0f}) {
    EXPECT_NEAR(sigmoid(x) + sigmoid(-x), 1.0f, 2e-7f);
    EXPECT_NEAR(sigmoid(x), 1 / (1 + std::exp(-static_cast<double>(x))), 1.2e-7);
  }
}

}  // namespace
}  // namespace ptrain::cpu
