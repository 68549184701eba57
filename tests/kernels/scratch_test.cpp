// The scratch that a plan books serves the ops that a run calls.
#include "kernels/ops/scratch.h"

#include <gtest/gtest.h>

#include "kernels/ops/attention.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/gemm.h"
#include "tests/kernels/guarded.h"

namespace ptrain {
namespace {

constexpr ScratchSizes small = {
    .B = 2, .T = 33, .N = 66, .C = 24, .F = 40, .V = 96, .H = 3, .K = 1, .D = 8, .dtype = DType::bf16};

TEST(Scratch, IsNothingInF32OnACpuUnlessProductsAreQuantized) {
  ScratchSizes sizes = small;
  for (DType dtype : {DType::f32, DType::f64}) {
    sizes.dtype = dtype;
    EXPECT_EQ(op_scratch_bytes(DeviceKind::cpu, sizes), 0);
  }
  sizes.is_fp8 = true;
  EXPECT_GT(op_scratch_bytes(DeviceKind::cpu, sizes), 0);
}

TEST(Scratch, GrowsWithEverySizeAndBlocksOfProductsHaveACap) {
  for (DeviceKind kind : {DeviceKind::cpu, DeviceKind::cuda}) {
    const int64_t before = op_scratch_bytes(kind, small);
    EXPECT_GT(before, 0);
    for (int64_t ScratchSizes::*size :
         {&ScratchSizes::B, &ScratchSizes::T, &ScratchSizes::N, &ScratchSizes::C, &ScratchSizes::F,
          &ScratchSizes::V, &ScratchSizes::H, &ScratchSizes::K, &ScratchSizes::D}) {
      ScratchSizes larger = small;
      larger.*size *= 7;
      EXPECT_GE(op_scratch_bytes(kind, larger), before);
    }
  }
  ScratchSizes wide = small;
  wide.V = 1 << 20;
  EXPECT_EQ(op_scratch_bytes(DeviceKind::cpu, wide), int64_t{16} * 3 * 512 * 512 * 4);
}

TEST(Scratch, OfAPlanServesEveryOpWithAnyThreads) {
  const ScratchSizes& s = small;
  const Buffer scratch(op_scratch_bytes(DeviceKind::cpu, s));
  for (int threads : {1, 2, 5, 40}) {
    Context context;
    context.threads = threads;
    context.scratch = Tensor(scratch.data(), {scratch.bytes()}, DType::u8);
    Guarded<BFloat16> x(s.N, s.C), w(s.V, s.C), logits(s.N, s.V), dx(s.N, s.C), dw(s.V, s.C);
    x.random(1), w.random(2), dw.fill(0);
    linear_forward(context, x.view(), w.view(), {}, logits.view());
    linear_backward_input(context, logits.view(), w.view(), dx.view());
    linear_backward_weight(context, logits.view(), x.view(), dw.view());
    std::vector<int32_t> ids(static_cast<size_t>(s.N), 5), start(static_cast<size_t>(s.N), 0);
    embedding_backward(context, ids_of(ids), dx.view(), 0, dw.view());
    const AttentionDims dims{.B = s.B, .T = s.T, .H = s.H, .K = s.K, .D = s.D, .group = 3};
    Guarded<BFloat16> q(s.N, s.H * s.D), k(s.N, s.D), v(s.N, s.D), out(s.N, s.H * s.D), dq(s.N, s.H * s.D),
        dk(s.N, s.D), dv(s.N, s.D);
    Guarded<float> lse(1, s.B * s.H * s.T), delta(1, s.B * s.H * s.T);
    q.random(3, 0.1), k.random(4), v.random(5);
    const Shape rows{s.B, s.H, s.T};
    attention_forward(context, dims, q.view(), k.view(), v.view(), ids_of(start), out.view(), lse.view(rows));
    attention_backward(context, dims, q.view(), k.view(), v.view(), ids_of(start), out.view(), lse.view(rows),
                       q.view(), delta.view(rows), dq.view(), dk.view(), dv.view());
    EXPECT_TRUE(logits.intact() && dx.intact() && dw.intact() && dq.intact() && dk.intact() && dv.intact());
    for (double value : dq.values()) ASSERT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace ptrain
