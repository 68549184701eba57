#include "kernels/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/crc32c.h"

namespace ptrain {
namespace {

// Known answers published with the generator (Random123, kat_vectors, philox4x32 with 10 rounds).
TEST(Rng, PhiloxGivesThePublishedWords) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~uint64_t{0}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Rng, NormalHasMeanZeroAndVarianceOne) {
  const Rng rng(7, hash_of("model.embed_tokens.weight"));
  const int n = 200000;
  double sum = 0, squares = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const double x = rng.normal(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1.0, 4 * std::sqrt(2.0 / n));
}

TEST(Rng, BelowStaysBelowAndReachesEveryValue) {
  const Rng rng(1, 2);
  std::array<int, 6> seen{};
  for (uint64_t i = 0; i < 600; ++i) ++seen.at(rng.below(i, 6));
  for (int count : seen) EXPECT_GT(count, 50);
}

TEST(Crc32c, GivesTheCheckValueAndContinues) {
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(crc32c("456789", 6, crc32c("123", 3)), 0xE3069283u);
}

}  // namespace
}  // namespace ptrain
