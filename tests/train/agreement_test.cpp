// What counts as a difference between two runs, and what it is called.
#include "src/train/agreement.h"

#include <limits>

#include "tests/train/tiny_case.h"

namespace ptrain {
namespace {

Observed observed(const std::vector<std::vector<float>>& gradients) {
  Observed seen;
  seen.steps[0] = {.step = 1, .loss = 5, .grad_norm = 1, .learning_rate = 1e-3};
  seen.steps[1] = {.step = 2, .loss = 4, .grad_norm = 1, .learning_rate = 1e-3};
  for (size_t i = 0; i < gradients.size(); ++i) {
    seen.gradients.push_back(fingerprint_of(gradients[i], i));
    seen.loaded.push_back(fingerprint_of(random_values(50 + i, 100), i));
    seen.weights.push_back(fingerprint_of(random_values(60 + i, 100), i));
  }
  return seen;
}

TEST(Compare, NamesTheFirstTensorFromTheHeadDownAndHoldsEachToItsDue) {
  const std::vector<std::string> names = {"embedding", "block", "head"};
  std::vector<std::vector<float>> gradients = {random_values(1, 100), random_values(2, 100),
                                               random_values(3, 100)};
  const Observed reference = observed(gradients);
  const AllTolerances tolerances = {.layers = {5e-6, 5e-5, 1e-4, 1e-7}, .sums = tolerances_of_sums(4)};
  const auto difference = [&](const Observed& other, Expected expected) {
    return compare(names, reference, other, expected, tolerances).difference;
  };
  using enum Expected;
  EXPECT_EQ(difference(reference, same_bits), "");
  for (float& value : gradients[0]) value *= 1 + 1e-5f;
  for (float& value : gradients[1]) value *= 1 + 1e-5f;
  const Observed near = observed(gradients);
  EXPECT_TRUE(difference(near, same_bits).starts_with("step 1: gradient of block differs, by "))
      << difference(near, same_bits);
  EXPECT_TRUE(difference(near, same_layers).starts_with("step 1: gradient of block differs, by "));
  EXPECT_EQ(difference(near, same_model), "");

  Observed other = reference;
  other.steps[1].loss *= 1 + 4e-6;
  EXPECT_EQ(difference(other, same_layers), "") << "step 2 is behind an update";
  EXPECT_TRUE(difference(other, same_bits).starts_with("step 2: loss 4.00001"));
  other.steps[1].loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(difference(other, same_model).starts_with("step 2: loss nan instead of 4"));
  other = reference;
  other.loaded[1] = fingerprint_of(random_values(99, 100), 1);
  EXPECT_TRUE(difference(other, same_model).starts_with("before step 1: weight block differs"));
  other = reference;
  other.weights[2] = fingerprint_of(random_values(99, 100), 2);
  EXPECT_TRUE(difference(other, same_model).starts_with("after step 2: weight head differs"));
  other = reference;
  other.unequal_replicas[1] = {"block", "head"};
  EXPECT_EQ(difference(other, same_bits),
            "after step 2: weight block is not the same on all data ranks, nor are 1 others");
}

TEST(Tolerances, GrowWithDepthAndCoarseness) {
  ModelSpec spec = TinyCase().spec();
  const auto gradient = [&](Config::Precision precision) {
    return tolerances_of_layers(precision, spec).gradient;
  };
  using enum Config::Precision;
  EXPECT_LT(gradient(fp32), 2e-5);
  EXPECT_LT(gradient(fp32), gradient(fp16));
  EXPECT_LT(gradient(fp16), gradient(bf16));
  EXPECT_LE(gradient(bf16), gradient(fp8));
  spec.L = 32;
  spec.F = 11008;
  EXPECT_NEAR(gradient(fp32), 3.5e-4, 1e-5);  // the header's example
  EXPECT_NEAR(gradient(bf16), 0.22, 0.01);
  spec.L = 1000;
  EXPECT_EQ(gradient(fp8), 0.5);
}

}  // namespace
}  // namespace ptrain
