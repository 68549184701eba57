// Fingerprints: the same in any order and split, different for a bit, and as far apart as the tensors.
#include <cmath>

#include "tests/train/tiny_case.h"

namespace ptrain {
namespace {

TEST(Fingerprint, IsTheSameInAnyOrderAndSplit) {
  const std::vector<float> values = random_values(1, 1001);
  const Fingerprint whole = fingerprint_of(values);
  Fingerprint parts;
  const std::span<const float> all = values;
  add_elements(7, 600, all.subspan(600), parts);
  add_elements(7, 0, all.first(13), parts);
  add_elements(7, 13, all.subspan(13, 587), parts);
  EXPECT_EQ(parts.bits, whole.bits);
  EXPECT_EQ(parts.elements, 1001);
  EXPECT_NEAR(parts.norm(), whole.norm(), 1e-12 * whole.norm());
  EXPECT_LT(distance(parts, whole), 1e-12 * whole.norm());
  EXPECT_NE(fingerprint_of(values, 8).bits, whole.bits) << "another tensor";
}

TEST(Fingerprint, TellsASingleBitAPermutationAndNoSignOfZero) {
  std::vector<float> values = random_values(2, 100);
  const Fingerprint whole = fingerprint_of(values);
  values[50] = std::nextafter(values[50], 9.0f);
  EXPECT_NE(fingerprint_of(values).bits, whole.bits);
  values = random_values(2, 100);
  std::swap(values[3], values[4]);
  EXPECT_NE(fingerprint_of(values).bits, whole.bits);
  EXPECT_GT(distance(fingerprint_of(values), whole), 0);
  EXPECT_EQ(fingerprint_of({0.0f, 1.0f}).bits, fingerprint_of({-0.0f, 1.0f}).bits);
}

TEST(Fingerprint, TheirDistanceIsThatOfTheTensors) {
  const std::vector<float> values = random_values(3, 4000);
  int far = 0;
  double sum = 0;
  constexpr int trials = 200;
  for (uint64_t trial = 0; trial < trials; ++trial) {
    const std::vector<float> noise = random_values(100 + trial, 4000);
    std::vector<float> other = values;
    double squares = 0;
    for (size_t i = 0; i < other.size(); ++i) {
      other[i] += 0.01f * noise[i];
      squares += std::pow(double{other[i]} - double{values[i]}, 2);
    }
    const double ratio = distance(fingerprint_of(values), fingerprint_of(other)) / std::sqrt(squares);
    far += ratio < 0.1 || ratio > 3;
    sum += ratio * ratio;
  }
  EXPECT_EQ(far, 0);
  // The mean of 800 squares of normal numbers: a deviation of sqrt(2 / 800) = 0.05, four of them.
  EXPECT_NEAR(sum / trials, 1, 0.2);
}

}  // namespace
}  // namespace ptrain
