// LayerNorm's kernels beside their CPU twins: rows held by a warp, by a block, and in no registers.
#include <gtest/gtest.h>

#include "kernels/cuda/scratch.h"
#include "kernels/ops/layernorm.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr double eps = 1e-5;

struct Case {
  int64_t N, C, gap;
};

/// For every dtype some widths go by warp (1, 2 and 4 runs a lane), by block (2 and 4 runs a thread) and
/// element by element (odd widths and gaps, and rows that no registers hold).
std::vector<Case> cases() {
  return {{1, 1, 0},    {3, 7, 0},   {2, 8, 8},    {19, 24, 0},  {7, 24, 3},   {9, 136, 0},  {5, 264, 16},
          {11, 576, 0}, {3, 577, 0}, {4, 1032, 8}, {2, 2056, 0}, {3, 4104, 0}, {2, 8200, 0}, {1, 16392, 0}};
}

class LayerNormTwins : public testing::TestWithParam<DType> {};

TEST_P(LayerNormTwins, ForwardAgreesWithAndWithoutAResidualAndABias) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [N, C, gap] : cases()) {
    for (const auto& [has_delta, has_bias] : {std::pair{false, false}, {false, true}, {true, true}}) {
      TwinTensor x(device, {N, C}, dtype, gap), delta(device, {N, C}, dtype), w(device, {C}, dtype),
          b(device, {C}, dtype), sum(device, {N, C}, dtype), y(device, {N, C}, dtype, gap),
          mean(device, {N}, DType::f32), rstd(device, {N}, DType::f32);
      x.random(1), delta.random(2), w.random(3), b.random(4);
      sum.fill(0), y.fill(0), mean.fill(0), rstd.fill(0);
      const Tensor none;
      layernorm_forward(device.cpu(), x.cpu(), has_delta ? delta.cpu() : none, w.cpu(),
                        has_bias ? b.cpu() : none, has_delta ? sum.cpu() : none, y.cpu(), mean.cpu(),
                        rstd.cpu(), eps);
      layernorm_forward(device.gpu(), x.gpu(), has_delta ? delta.gpu() : none, w.gpu(),
                        has_bias ? b.gpu() : none, has_delta ? sum.gpu() : none, y.gpu(), mean.gpu(),
                        rstd.gpu(), eps);
      // In y three terms of size 4 cancel.
      EXPECT_TRUE(y.agrees(rounded_once(dtype, 4))) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(sum.same_bits()) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(mean.agrees(rounded_once(DType::f32))) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(rstd.agrees(rounded_once(DType::f32))) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(x.same_bits() && delta.same_bits() && w.same_bits() && b.same_bits());
    }
  }
}

TEST_P(LayerNormTwins, TheSumMayLieOverTheInput) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const int64_t C : {13, 24, 576, 2056}) {
    TwinTensor x(device, {5, C}, dtype), delta(device, {5, C}, dtype), w(device, {C}, dtype),
        y(device, {5, C}, dtype), mean(device, {5}, DType::f32), rstd(device, {5}, DType::f32);
    x.random(1), delta.random(2), w.random(3), y.fill(0), mean.fill(0), rstd.fill(0);
    layernorm_forward(device.cpu(), x.cpu(), delta.cpu(), w.cpu(), {}, x.cpu(), y.cpu(), mean.cpu(),
                      rstd.cpu(), eps);
    layernorm_forward(device.gpu(), x.gpu(), delta.gpu(), w.gpu(), {}, x.gpu(), y.gpu(), mean.gpu(),
                      rstd.gpu(), eps);
    EXPECT_TRUE(x.same_bits()) << C;
    EXPECT_TRUE(y.agrees(rounded_once(dtype, 4))) << C;
  }
}

TEST_P(LayerNormTwins, ALargeOffsetOfARowCancels) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const int64_t C : {24, 577, 2056}) {
    TwinTensor x(device, {2, C}, dtype), w(device, {C}, dtype), y(device, {2, C}, dtype),
        mean(device, {2}, DType::f32), rstd(device, {2}, DType::f32);
    std::vector<double> values(static_cast<size_t>(2 * C));
    for (size_t i = 0; i < values.size(); ++i) values[i] = 1024 + 8 * static_cast<double>(i % 3);
    x.set(values), w.fill(1), y.fill(0), mean.fill(0), rstd.fill(0);
    for (const bool is_gpu : {false, true}) {
      const auto side = [&](TwinTensor& tensor) { return is_gpu ? tensor.gpu() : tensor.cpu(); };
      layernorm_forward(is_gpu ? device.gpu() : device.cpu(), side(x), {}, side(w), {}, {}, side(y),
                        side(mean), side(rstd), eps);
    }
    // The mean errs by a few roundings of 1024, which is 2^8 roundings of the deviation.
    EXPECT_TRUE(y.agrees(rounded_once(dtype, 1024))) << C;
    EXPECT_TRUE(rstd.agrees(rounded_once(DType::f32))) << C;
  }
}

/// Which tensor dx lies over.
enum class Over { none, dy, dresidual };

/// One backward on both sides.
struct BackwardTwins {
  BackwardTwins(TestDevice& device, const Case& c, DType dtype, DType dw_dtype)
      : device(device),
        x(device, {c.N, c.C}, dtype, c.gap),
        w(device, {c.C}, dtype),
        mean(device, {c.N}, DType::f32),
        rstd(device, {c.N}, DType::f32),
        dy(device, {c.N, c.C}, dtype),
        dresidual(device, {c.N, c.C}, dtype, c.gap),
        dx(device, {c.N, c.C}, dtype),
        dw(device, {c.C}, dw_dtype),
        db(device, {c.C}, dw_dtype) {
    x.random(1), w.random(2);
    std::vector<double> means(static_cast<size_t>(c.N)), scales(means);
    for (size_t n = 0; n < scales.size(); ++n) {
      means[n] = 0.1 * static_cast<double>(n % 7) - 0.3;
      scales[n] = 0.8 + 0.1 * static_cast<double>(n % 5);
    }
    mean.set(means), rstd.set(scales);
    reset();
  }
  void reset() { dy.random(3), dresidual.random(4), dx.fill(0), dw.random(5), db.random(6); }

  TwinTensor& output(Over over) { return over == Over::dy ? dy : over == Over::dresidual ? dresidual : dx; }
  void run_cpu(Over over, bool has_residual, bool has_bias = true) {
    layernorm_backward(device.cpu(), x.cpu(), w.cpu(), mean.cpu(), rstd.cpu(), dy.cpu(),
                       has_residual ? dresidual.cpu() : Tensor(), output(over).cpu(), dw.cpu(),
                       has_bias ? db.cpu() : Tensor());
  }
  void run_gpu(Over over, bool has_residual, bool has_bias = true) {
    layernorm_backward(device.gpu(), x.gpu(), w.gpu(), mean.gpu(), rstd.gpu(), dy.gpu(),
                       has_residual ? dresidual.gpu() : Tensor(), output(over).gpu(), dw.gpu(),
                       has_bias ? db.gpu() : Tensor());
  }

  TestDevice& device;
  TwinTensor x, w, mean, rstd, dy, dresidual, dx, dw, db;
};

TEST_P(LayerNormTwins, BackwardAgreesAndDxMayLieOverItsInputs) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Case& c : cases()) {
    for (const auto& [over, has_residual] :
         {std::pair{Over::none, false}, {Over::none, true}, {Over::dy, true}, {Over::dresidual, true}}) {
      BackwardTwins twins(device, c, dtype, over == Over::dy ? DType::f32 : dtype);
      twins.run_cpu(over, has_residual, over != Over::dresidual);
      twins.run_gpu(over, has_residual, over != Over::dresidual);
      const double rows = static_cast<double>(c.N);
      EXPECT_TRUE(twins.output(over).agrees(rounded_once(dtype, 8))) << c.N << " x " << c.C << " + " << c.gap;
      EXPECT_TRUE(twins.dw.agrees(rounded_once(twins.dw.cpu().dtype, rows))) << c.N << " x " << c.C;
      EXPECT_TRUE(twins.db.agrees(rounded_once(twins.db.cpu().dtype, rows))) << c.N << " x " << c.C;
      EXPECT_TRUE(twins.x.same_bits() && twins.w.same_bits() && twins.mean.same_bits() &&
                  twins.rstd.same_bits());
    }
  }
}

TEST_P(LayerNormTwins, BackwardHasTheSameBitsInEveryOrderOfThreads) {
  TestDevice device;
  for (const Case& c : {Case{70, 24, 0}, {33, 577, 0}, {9, 2056, 0}}) {
    BackwardTwins twins(device, c, GetParam(), DType::f32);
    std::vector<double> first[3];
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      twins.reset();
      shuffle_order(seed);
      twins.run_gpu(Over::none, true);
      const std::vector<double> found[3] = {twins.dx.values(), twins.dw.values(), twins.db.values()};
      for (size_t i = 0; i < std::size(found); ++i) {
        if (seed == 1) first[i] = found[i];
        EXPECT_EQ(found[i], first[i]) << "output " << i;
      }
    }
  }
}

// Which rows a block takes does not depend on the dtype.
TEST(LayerNormRows, BeyondTheBlocksAreWalkedRoundAndRound) {
  const DType dtype = DType::bf16;
  TestDevice device;
  for (const Case& c : {Case{8500, 8, 0}, {1100, 1, 0}}) {
    TwinTensor y(device, {c.N, c.C}, dtype), mean(device, {c.N}, DType::f32), rstd(device, {c.N}, DType::f32);
    BackwardTwins twins(device, c, dtype, DType::f32);
    y.fill(0), mean.fill(0), rstd.fill(0);
    layernorm_forward(device.cpu(), twins.x.cpu(), {}, twins.w.cpu(), {}, {}, y.cpu(), mean.cpu(), rstd.cpu(),
                      eps);
    layernorm_forward(device.gpu(), twins.x.gpu(), {}, twins.w.gpu(), {}, {}, y.gpu(), mean.gpu(), rstd.gpu(),
                      eps);
    EXPECT_TRUE(y.agrees(rounded_once(dtype, 4)));
    twins.run_cpu(Over::none, true);
    twins.run_gpu(Over::none, true);
    EXPECT_TRUE(twins.dx.agrees(rounded_once(dtype, 8)));
    EXPECT_TRUE(twins.dw.agrees(rounded_once(DType::f32, static_cast<double>(c.N))));
    EXPECT_TRUE(twins.db.agrees(rounded_once(DType::f32, static_cast<double>(c.N))));
  }
}

TEST(LayerNormRows, HaveEnoughOfTheScratchThatIsBooked) {
  for (const int64_t N : {1, 7, 8, 9, 511, 600}) {
    TestDevice device(cuda::layernorm_scratch_bytes({.N = N, .C = 13}));
    BackwardTwins twins(device, {N, 13, 0}, DType::bf16, DType::f32);
    twins.run_cpu(Over::none, true);
    twins.run_gpu(Over::none, true);
    EXPECT_TRUE(twins.dw.agrees(rounded_once(DType::f32, static_cast<double>(N)))) << N;
    EXPECT_TRUE(twins.db.agrees(rounded_once(DType::f32, static_cast<double>(N)))) << N;
  }
}

TEST_P(LayerNormTwins, NoRowsLeaveTheGradientsAsTheyWere) {
  TestDevice device;
  for (const int64_t C : {24, 577}) {
    BackwardTwins twins(device, {0, C, 0}, GetParam(), GetParam());
    twins.run_gpu(Over::none, false);
    EXPECT_TRUE(twins.dw.same_bits() && twins.db.same_bits());
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, LayerNormTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace ptrain
