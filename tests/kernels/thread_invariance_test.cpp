// Under Context::is_thread_invariant every op of a training step has the same bits for any number of threads.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/gelu.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/layernorm.h"
#include "kernels/ops/loss.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/quantize.h"
#include "kernels/ops/rope.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/guarded.h"
#include "tests/support/close.h"

namespace ptrain {
namespace {

Context invariant_context(int threads) {
  Context context = cpu_context(threads);
  context.is_thread_invariant = true;
  return context;
}

void append(std::vector<double>& all, const std::vector<double>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

/// run(context) gives the values of all outputs.
void expect_any_threads(const char* op, const std::function<std::vector<double>(Context&)>& run) {
  std::vector<double> alone;
  for (int threads : {1, 2, 3, 5}) {
    Context context = invariant_context(threads);
    const std::vector<double> now = run(context);
    if (threads == 1) alone = now;
    EXPECT_TRUE(same_bits(alone, now)) << op << ", " << threads << " threads";
  }
}

template <class T>
class ThreadInvariance : public testing::Test {};
TYPED_TEST_SUITE(ThreadInvariance, Storages);

struct Product {
  int64_t N, C, O;
};

TYPED_TEST(ThreadInvariance, OfProducts) {
  using T = TypeParam;
  // A few rows, one tile, tiles along each side and both, odd ones, and a sum longer than a widened block.
  for (const Product& s : {Product{3, 200, 700}, Product{33, 70, 41}, Product{1030, 270, 531},
                           Product{61, 300, 1100}, Product{700, 1500, 37}, Product{520, 1030, 515}}) {
    Guarded<T> x(s.N, s.C, 3), w(s.O, s.C), dy(s.N, s.O), bias(1, s.O);
    x.random(1), w.random(2), dy.random(3), bias.random(4);
    expect_any_threads("linear", [&](Context& context) {
      Guarded<T> y(s.N, s.O), dx(s.N, s.C), dw(s.O, s.C);
      dw.random(5);
      linear_forward(context, x.view(), w.view(), bias.view(Shape{s.O}), y.view());
      linear_backward_input(context, dy.view(), w.view(), dx.view());
      linear_backward_weight(context, dy.view(), x.view(), dw.view());
      std::vector<double> all = y.values();
      append(all, dx.values());
      append(all, dw.values());
      return all;
    });
  }
}

TYPED_TEST(ThreadInvariance, OfSumsOverRows) {
  using T = TypeParam;
  for (const int64_t N : {7, 1001}) {
    for (const int64_t C : {5, 130, 1027}) {
      Guarded<T> x(N, C), w(1, C), dy(N, C);
      x.random(1), w.random(2), dy.random(3);
      expect_any_threads("norms and bias", [&](Context& context) {
        Guarded<T> sum(N, C), y(N, C), dx(N, C), dw(1, C), db(1, C), bias(1, C);
        Guarded<cpu::Wide<T>> mean(1, N), rstd(1, N);
        dw.random(4), db.random(5), bias.random(6);
        const Tensor vector = w.view(Shape{C}), none;
        std::vector<double> all;
        rmsnorm_forward(context, x.view(), dy.view(), vector, sum.view(), y.view(), rstd.view(Shape{N}),
                        1e-5);
        rmsnorm_backward(context, x.view(), vector, rstd.view(Shape{N}), dy.view(), x.view(), dx.view(),
                         dw.view(Shape{C}));
        for (const Guarded<T>* output : {&sum, &y, &dx, &dw}) append(all, output->values());
        append(all, rstd.values());
        layernorm_forward(context, x.view(), none, vector, vector, none, y.view(), mean.view(Shape{N}),
                          rstd.view(Shape{N}), 1e-5);
        layernorm_backward(context, x.view(), vector, mean.view(Shape{N}), rstd.view(Shape{N}), dy.view(),
                           none, dx.view(), dw.view(Shape{C}), db.view(Shape{C}));
        linear_backward_bias(context, dy.view(), bias.view(Shape{C}));
        for (const Guarded<T>* output : {&y, &dx, &dw, &db, &bias}) append(all, output->values());
        return all;
      });
    }
  }
}

TYPED_TEST(ThreadInvariance, OfAttention) {
  using T = TypeParam;
  for (const AttentionCase& c : attention_cases()) {
    const AttentionDims& d = c.dims;
    const int64_t N = d.B * d.T;
    std::vector<int32_t> starts = document_starts(c);
    Guarded<T> q(N, d.H * d.D), k(N, d.K * d.D), v(N, d.K * d.D), dout(N, d.H * d.D);
    q.random(1), k.random(2), v.random(3), dout.random(4);
    expect_any_threads(c.name.c_str(), [&](Context& context) {
      Guarded<T> out(N, d.H * d.D), dq(N, d.H * d.D), dk(N, d.K * d.D), dv(N, d.K * d.D);
      Guarded<cpu::Wide<T>> lse(1, d.H * N), delta(1, d.H * N);
      const Shape rows{d.B, d.H, d.T};
      attention_forward(context, d, q.view(), k.view(), v.view(), ids_of(starts), out.view(), lse.view(rows));
      attention_backward(context, d, q.view(), k.view(), v.view(), ids_of(starts), out.view(), lse.view(rows),
                         dout.view(), delta.view(rows), dq.view(), dk.view(), dv.view());
      std::vector<double> all = lse.values();
      for (const Guarded<T>* output : {&out, &dq, &dk, &dv}) append(all, output->values());
      return all;
    });
  }
}

TYPED_TEST(ThreadInvariance, OfTheLoss) {
  using T = TypeParam;
  constexpr int64_t R = 301, V = 533;
  Guarded<T> logits(R, V);
  logits.random(1, 3);
  std::vector<int32_t> targets;
  for (int32_t r = 0; r < R; ++r) targets.push_back(r * 7 % V);
  expect_any_threads("loss", [&](Context& context) {
    Guarded<T> gradient(R, V);
    Guarded<cpu::Wide<T>> statistics(R, 3), combined(R, 3);
    double loss = 0;
    copy(context, logits.view(), gradient.view());
    loss_statistics(context, gradient.view(), ids_of(targets), 0, statistics.view());
    loss_combine(context, Tensor(statistics.view().data, {1, R, 3}, dtype_of<cpu::Wide<T>>), combined.view());
    loss_sum(context, combined.view(), Tensor(&loss, {1}, DType::f64));
    loss_backward(context, gradient.view(), combined.view(), ids_of(targets), 0, 1.0 / R);
    std::vector<double> all = combined.values();
    append(all, gradient.values());
    all.push_back(loss);
    return all;
  });
}

TYPED_TEST(ThreadInvariance, OfEmbeddingsRotationsAndActivations) {
  using T = TypeParam;
  constexpr int64_t N = 401, D = 24, H = 7, C = H * D, V = 53;
  std::vector<int32_t> ids, positions;
  for (int32_t n = 0; n < N; ++n) ids.push_back(n * n % 71), positions.push_back(n % 97);
  Guarded<T> x(N, 2 * C), dy(N, C), table(V, C);
  Guarded<cpu::Wide<T>> cos_sin(97, D);
  x.random(1), dy.random(2), table.random(3), cos_sin.random(4);
  const Tensor angles(cos_sin.view().data, {97, D / 2, 2}, dtype_of<cpu::Wide<T>>);
  expect_any_threads("embedding, rope, activations", [&](Context& context) {
    Guarded<T> looked_up(N, C), dtable(V, C), dx(N, 2 * C), y(N, C);
    dtable.random(5);
    std::vector<double> all;
    embedding_forward(context, ids_of(ids), table.view(), 3, looked_up.view());
    embedding_backward(context, ids_of(ids), dy.view(), 3, dtable.view());
    rope(context, looked_up.view(), ids_of(positions), angles, D, Rotation::backward);
    swiglu_forward(context, x.view(), y.view());
    append(all, y.values());
    swiglu_backward(context, x.view(), dy.view(), dx.view(), y.view());
    for (const Guarded<T>* output : {&looked_up, &dtable, &dx, &y}) append(all, output->values());
    for (Gelu kind : {Gelu::erf, Gelu::tanh}) {
      gelu_forward(context, dy.view(), y.view(), kind);
      append(all, y.values());
      gelu_backward(context, dy.view(), y.view(), y.view(), kind);
      append(all, y.values());
    }
    add(context, dy.view(), y.view());
    scale(context, y.view(), 0.3);
    double squares = 0;
    sum_of_squares(context, x.view(), Tensor(&squares, {1}, DType::f64));
    append(all, y.values());
    all.push_back(squares);
    return all;
  });
}

TEST(ThreadInvariance8Bits, OfQuantizedProducts) {
  constexpr int64_t N = 530, C = 700, O = 514;
  Guarded<float> a(N, C), b(O, C);
  a.random(1), b.random(2);
  expect_any_threads("linear_quantized", [&](Context& context) {
    float amax[2] = {}, scales[2] = {};
    std::vector<uint8_t> bytes_a(N * C), bytes_b(O * C);
    const Tensor q_a(bytes_a.data(), {N, C}, DType::f8_e4m3), q_b(bytes_b.data(), {O, C}, DType::f8_e4m3);
    const Tensor none;
    Guarded<float> y(N, O);
    int i = 0;
    for (const auto& [x, q] : {std::pair{a.view(), q_a}, std::pair{b.view(), q_b}}) {
      const Tensor largest(&amax[i], {1}, DType::f32), factor(&scales[i], {1}, DType::f32);
      update_amax(context, x, largest);
      scale_of_amax(context, largest, DType::f8_e4m3, 0, factor);
      quantize(context, x, factor, q, none);
      ++i;
    }
    linear_quantized(context, q_a, Tensor(&scales[0], {1}, DType::f32), q_b,
                     Tensor(&scales[1], {1}, DType::f32), y.view());
    std::vector<double> all = y.values();
    append(all, {amax[0], amax[1]});
    return all;
  });
}

TEST(ThreadInvariantTiles, FollowFromTheShapeAloneAndAreMany) {
  for (const Product& s : {Product{1024, 576, 960}, Product{256, 49152, 576}, Product{4096, 4096, 11008}}) {
    const cpu::TileGrid alone = cpu::tile_grid(invariant_context(1), s.N, s.O, s.C);
    for (int threads : {2, 3, 5, 64}) {
      const cpu::TileGrid grid = cpu::tile_grid(invariant_context(threads), s.N, s.O, s.C);
      EXPECT_TRUE(grid.rows == alone.rows && grid.columns == alone.columns);
    }
    EXPECT_GE(alone.rows * alone.columns, 2);
    EXPECT_TRUE(alone.rows == 1 || s.N / alone.rows >= 256);
    EXPECT_TRUE(alone.columns == 1 || s.O / alone.columns >= 256);
  }
}

template <class T>
class ThreadInvarianceNarrow : public testing::Test {};
TYPED_TEST_SUITE(ThreadInvarianceNarrow, NarrowStorages);

TYPED_TEST(ThreadInvarianceNarrow, ScratchDecidesOnThreadsAtWorkAndNotOnBits) {
  using T = TypeParam;
  constexpr int64_t N = 600, C = 530, O = 610, block_bytes = cpu::widened_block_bytes(512);
  Guarded<T> x(N, C), w(O, C);
  x.random(1), w.random(2);
  std::vector<double> first;
  for (const int64_t blocks : {1, 2, 5}) {
    Guarded<T> y(N, O);
    Context context = invariant_context(4);
    context.scratch.shape = Shape{blocks * block_bytes};
    linear_forward(context, x.view(), w.view(), {}, y.view());
    if (blocks == 1) first = y.values();
    EXPECT_TRUE(same_bits(first, y.values())) << blocks;
  }
  Context context = invariant_context(4);
  context.scratch.shape = Shape{block_bytes - 1};
  Guarded<T> y(N, O);
  try {
    linear_forward(context, x.view(), w.view(), {}, y.view());
    FAIL() << "no block fits";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::defect);
    EXPECT_NE(std::string(error.what()).find(fmt::format("at least {} are needed", block_bytes)),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ptrain
