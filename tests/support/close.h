// Comparison of results with an oracle, with a message that names the worst entry.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

namespace ptrain {

/// Every |actual - expected| is at most `tolerance` times the largest |expected|. Equal infinities are close,
/// NaN is close to nothing. Use: EXPECT_TRUE(close(y, oracle, tolerance::dot<T>(C)));
template <class Actual>
testing::AssertionResult close(const Actual& actual, const std::vector<double>& expected, double tolerance) {
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure() << actual.size() << " entries, expected " << expected.size();
  }
  double largest = 0;
  for (double e : expected) {
    if (std::isfinite(e)) largest = std::max(largest, std::fabs(e));
  }
  double worst = -1;
  size_t at = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double a = static_cast<double>(actual[i]);
    if (a == expected[i]) continue;
    const double difference = std::fabs(a - expected[i]);
    if (!(difference <= worst)) {
      worst = difference;
      at = i;
    }
    if (std::isnan(difference)) break;
  }
  if (worst <= tolerance * largest) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "entry " << at << " of " << expected.size() << " is " << actual[at]
                                     << ", expected " << expected[at] << "; off by " << worst / largest
                                     << " of the largest entry, allowed are " << tolerance;
}

/// The same numbers to the last bit. Use: EXPECT_TRUE(same_bits(first, again));
template <class Number>
testing::AssertionResult same_bits(const std::vector<Number>& a, const std::vector<Number>& b) {
  if (a.size() != b.size())
    return testing::AssertionFailure() << a.size() << " and " << b.size() << " entries";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(Number)) != 0) {
      return testing::AssertionFailure()
             << "entry " << i << " of " << a.size() << " is " << a[i] << " and " << b[i];
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace ptrain
