// Rotary embedding against rotations in f64.
#include "kernels/ops/rope.h"

#include <gtest/gtest.h>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

template <class T>
class Rope : public testing::Test {};
TYPED_TEST_SUITE(Rope, Storages);

constexpr int64_t P = 40;

/// (P, R, 2): cosine and sine of position / 100^(i / R).
template <class T>
Guarded<T> angles(int64_t R) {
  Guarded<T> table(P, 2 * R);
  for (int64_t p = 0; p < P; ++p) {
    for (int64_t i = 0; i < R; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(100.0, -static_cast<double>(i) / static_cast<double>(R));
      table.at(p, 2 * i) = static_cast<T>(std::cos(angle));
      table.at(p, 2 * i + 1) = static_cast<T>(std::sin(angle));
    }
  }
  return table;
}

std::vector<int32_t> scattered_positions(int64_t N) {
  std::vector<int32_t> positions;
  for (int64_t n = 0; n < N; ++n) positions.push_back(static_cast<int32_t>((n * 17) % P));
  return positions;
}

TYPED_TEST(Rope, RotatesHalvesOfEveryHeadAndLeavesTheRest) {
  using T = TypeParam;
  struct Case {
    int64_t N, H, D, R, gap;
  };
  for (const Case& c : {Case{1, 1, 2, 1, 0}, Case{7, 3, 10, 5, 0}, Case{33, 2, 64, 32, 7},
                        Case{5, 3, 24, 8, 2}, Case{90, 9, 64, 32, 0}}) {
    Guarded<T> x(c.N, c.H * c.D, c.gap);
    Guarded<cpu::Wide<T>> table = angles<cpu::Wide<T>>(c.R);
    x.random(1);
    std::vector<int32_t> positions = scattered_positions(c.N);
    std::vector<double> expected;
    for (int64_t n = 0; n < c.N; ++n) {
      const int64_t p = positions[static_cast<size_t>(n)];
      for (int64_t h = 0; h < c.H; ++h) {
        for (int64_t d = 0; d < c.D; ++d) {
          const int64_t i = d % c.R;
          const double cosine = table(p, 2 * i), sine = table(p, 2 * i + 1);
          if (d < c.R) {
            expected.push_back(x(n, h * c.D + d) * cosine - x(n, h * c.D + d + c.R) * sine);
          } else if (d < 2 * c.R) {
            expected.push_back(x(n, h * c.D + d) * cosine + x(n, h * c.D + d - c.R) * sine);
          } else {
            expected.push_back(x(n, h * c.D + d));
          }
        }
      }
    }
    Context context = cpu_context(2);
    const Tensor cos_sin = table.view().reshaped(Shape{P, c.R, 2});
    const std::vector<double> before = x.values();
    rope(context, x.view(), ids_of(positions), cos_sin, c.D, Rotation::forward);
    EXPECT_TRUE(close(x.values(), expected, tolerance::elementwise<T>));
    EXPECT_TRUE(x.intact());
    rope(context, x.view(), ids_of(positions), cos_sin, c.D, Rotation::backward);
    // Of 16 bits both ways are rounded, and a rotation mixes the errors of two elements.
    const double allowed = tolerance::elementwise<T> * (cpu::is_narrow<T> ? 4 : 1);
    EXPECT_TRUE(close(x.values(), before, allowed));
  }
}

TYPED_TEST(Rope, BackwardIsTheTransposeOfForward) {
  // <rope(x), y> = <x, rope'(y)>: what a gradient of a linear map must satisfy.
  Guarded<double> x(9, 48), y(9, 48), rx(9, 48), ry(9, 48), table = angles<double>(8);
  rx.random(1), ry.random(2), x.random(1), y.random(2);
  std::vector<int32_t> positions = scattered_positions(9);
  Context context = cpu_context();
  const Tensor cos_sin = table.view().reshaped(Shape{P, 8, 2});
  rope(context, rx.view(), ids_of(positions), cos_sin, 16, Rotation::forward);
  rope(context, ry.view(), ids_of(positions), cos_sin, 16, Rotation::backward);
  EXPECT_NEAR(weighted_sum(rx, y), weighted_sum(x, ry), 1e-12);
}

TYPED_TEST(Rope, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  std::vector<double> first;
  for (int threads : {1, 2, 3}) {
    Guarded<T> x(131, 192);
    Guarded<cpu::Wide<T>> table = angles<cpu::Wide<T>>(32);
    x.random(1);
    std::vector<int32_t> positions = scattered_positions(131);
    Context context = cpu_context(threads);
    rope(context, x.view(), ids_of(positions), table.view().reshaped(Shape{P, 32, 2}), 64, Rotation::forward);
    if (threads == 1) first = x.values();
    EXPECT_TRUE(same_bits(first, x.values()));
  }
}

}  // namespace
}  // namespace ptrain
