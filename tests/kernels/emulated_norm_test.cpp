// RMSNorm's kernels beside their CPU twins: rows held by a warp, by a block, and in no registers.
#include <gtest/gtest.h>

#include "kernels/cuda/scratch.h"
#include "kernels/ops/norm.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr double eps = 1e-5;

struct Case {
  int64_t N, C, gap;
};

/// For every dtype some widths go by warp (1, 2 and 4 runs a lane), by block (2 and 4 runs a thread) and
/// element by element (odd widths and gaps, and rows that no registers hold); more rows than a block takes.
std::vector<Case> cases() {
  return {{1, 1, 0},    {3, 7, 0},   {2, 8, 8},    {19, 24, 0},  {7, 24, 3},   {9, 136, 0},  {5, 264, 16},
          {11, 576, 0}, {3, 577, 0}, {4, 1032, 8}, {2, 2056, 0}, {3, 4104, 0}, {2, 8200, 0}, {1, 16392, 0}};
}

class NormTwins : public testing::TestWithParam<DType> {};

TEST_P(NormTwins, ForwardAgreesWithAndWithoutAResidual) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [N, C, gap] : cases()) {
    for (const bool has_delta : {false, true}) {
      TwinTensor x(device, {N, C}, dtype, gap), delta(device, {N, C}, dtype), w(device, {C}, dtype),
          sum(device, {N, C}, dtype), y(device, {N, C}, dtype, gap), rstd(device, {N}, DType::f32);
      x.random(1), delta.random(2), w.random(3), sum.fill(0), y.fill(0), rstd.fill(0);
      const Tensor none;
      rmsnorm_forward(device.cpu(), x.cpu(), has_delta ? delta.cpu() : none, w.cpu(),
                      has_delta ? sum.cpu() : none, y.cpu(), rstd.cpu(), eps);
      rmsnorm_forward(device.gpu(), x.gpu(), has_delta ? delta.gpu() : none, w.gpu(),
                      has_delta ? sum.gpu() : none, y.gpu(), rstd.gpu(), eps);
      EXPECT_TRUE(y.agrees(rounded_once(dtype))) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(sum.same_bits()) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(rstd.agrees(rounded_once(DType::f32))) << N << " x " << C << " + " << gap;
      EXPECT_TRUE(x.same_bits() && delta.same_bits() && w.same_bits());
    }
  }
}

TEST_P(NormTwins, TheSumMayLieOverTheInput) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const int64_t C : {13, 24, 576, 2056}) {
    TwinTensor x(device, {5, C}, dtype), delta(device, {5, C}, dtype), w(device, {C}, dtype),
        y(device, {5, C}, dtype), rstd(device, {5}, DType::f32);
    x.random(1), delta.random(2), w.random(3), y.fill(0), rstd.fill(0);
    rmsnorm_forward(device.cpu(), x.cpu(), delta.cpu(), w.cpu(), x.cpu(), y.cpu(), rstd.cpu(), eps);
    rmsnorm_forward(device.gpu(), x.gpu(), delta.gpu(), w.gpu(), x.gpu(), y.gpu(), rstd.gpu(), eps);
    EXPECT_TRUE(x.same_bits()) << C;
    EXPECT_TRUE(y.agrees(rounded_once(dtype))) << C;
  }
}

/// Which tensor dx lies over.
enum class Over { none, dy, dresidual };

/// One backward on both sides; the device's dx and dw are returned, one after the other.
struct BackwardTwins {
  BackwardTwins(TestDevice& device, const Case& c, DType dtype, DType dw_dtype)
      : device(device),
        x(device, {c.N, c.C}, dtype, c.gap),
        w(device, {c.C}, dtype),
        rstd(device, {c.N}, DType::f32),
        dy(device, {c.N, c.C}, dtype),
        dresidual(device, {c.N, c.C}, dtype, c.gap),
        dx(device, {c.N, c.C}, dtype),
        dw(device, {c.C}, dw_dtype) {
    x.random(1), w.random(2);
    std::vector<double> scales(static_cast<size_t>(c.N));
    for (size_t n = 0; n < scales.size(); ++n) scales[n] = 0.8 + 0.1 * static_cast<double>(n % 5);
    rstd.set(scales);
    reset();
  }
  void reset() { dy.random(3), dresidual.random(4), dx.fill(0), dw.random(5); }

  TwinTensor& output(Over over) { return over == Over::dy ? dy : over == Over::dresidual ? dresidual : dx; }
  void run_cpu(Over over, bool has_residual) {
    rmsnorm_backward(device.cpu(), x.cpu(), w.cpu(), rstd.cpu(), dy.cpu(),
                     has_residual ? dresidual.cpu() : Tensor(), output(over).cpu(), dw.cpu());
  }
  void run_gpu(Over over, bool has_residual) {
    rmsnorm_backward(device.gpu(), x.gpu(), w.gpu(), rstd.gpu(), dy.gpu(),
                     has_residual ? dresidual.gpu() : Tensor(), output(over).gpu(), dw.gpu());
  }

  TestDevice& device;
  TwinTensor x, w, rstd, dy, dresidual, dx, dw;
};

TEST_P(NormTwins, BackwardAgreesAndDxMayLieOverItsInputs) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Case& c : cases()) {
    for (const auto& [over, has_residual] :
         {std::pair{Over::none, false}, {Over::none, true}, {Over::dy, true}, {Over::dresidual, true}}) {
      BackwardTwins twins(device, c, dtype, over == Over::dy ? DType::f32 : dtype);
      twins.run_cpu(over, has_residual);
      twins.run_gpu(over, has_residual);
      const double rows = static_cast<double>(c.N);
      EXPECT_TRUE(twins.output(over).agrees(rounded_once(dtype, 8))) << c.N << " x " << c.C << " + " << c.gap;
      EXPECT_TRUE(twins.dw.agrees(rounded_once(twins.dw.cpu().dtype, rows))) << c.N << " x " << c.C;
      EXPECT_TRUE(twins.x.same_bits() && twins.w.same_bits() && twins.rstd.same_bits());
    }
  }
}

TEST_P(NormTwins, BackwardHasTheSameBitsInEveryOrderOfThreads) {
  TestDevice device;
  for (const Case& c : {Case{70, 24, 0}, {33, 577, 0}, {9, 2056, 0}}) {
    BackwardTwins twins(device, c, GetParam(), DType::f32);
    std::vector<double> dx, dw;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      twins.reset();
      shuffle_order(seed);
      twins.run_gpu(Over::none, true);
      if (seed == 1) dx = twins.dx.values(), dw = twins.dw.values();
      EXPECT_EQ(twins.dx.values(), dx);
      EXPECT_EQ(twins.dw.values(), dw);
    }
  }
}

TEST_P(NormTwins, MoreRowsThanBlocksAreWalkedRoundAndRound) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Case& c : {Case{8500, 8, 0}, {1100, 1, 0}}) {
    TwinTensor y(device, {c.N, c.C}, dtype), rstd(device, {c.N}, DType::f32);
    BackwardTwins twins(device, c, dtype, DType::f32);
    y.fill(0), rstd.fill(0);
    rmsnorm_forward(device.cpu(), twins.x.cpu(), {}, twins.w.cpu(), {}, y.cpu(), rstd.cpu(), eps);
    rmsnorm_forward(device.gpu(), twins.x.gpu(), {}, twins.w.gpu(), {}, y.gpu(), rstd.gpu(), eps);
    EXPECT_TRUE(y.agrees(rounded_once(dtype)));
    twins.run_cpu(Over::none, true);
    twins.run_gpu(Over::none, true);
    EXPECT_TRUE(twins.dx.agrees(rounded_once(dtype, 8)));
    EXPECT_TRUE(twins.dw.agrees(rounded_once(DType::f32, static_cast<double>(c.N))));
  }
}

TEST_P(NormTwins, TheScratchThatIsBookedIsEnough) {
  for (const int64_t N : {1, 7, 8, 9, 511, 600}) {
    TestDevice device(cuda::norm_scratch_bytes({.N = N, .C = 13}));
    BackwardTwins twins(device, {N, 13, 0}, GetParam(), DType::f32);
    twins.run_cpu(Over::none, true);
    twins.run_gpu(Over::none, true);
    EXPECT_TRUE(twins.dw.agrees(rounded_once(DType::f32, static_cast<double>(N)))) << N;
  }
}

TEST_P(NormTwins, NoRowsLeaveTheGradientAsItWas) {
  TestDevice device;
  for (const int64_t C : {24, 577}) {
    BackwardTwins twins(device, {0, C, 0}, GetParam(), GetParam());
    twins.run_gpu(Over::none, false);
    EXPECT_TRUE(twins.dw.same_bits());
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, NormTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace ptrain
