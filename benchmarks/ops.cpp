// How fast are the ops beside the matrix products? Prints milliseconds, GB/s or GFLOP/s and the share of what
// the machine gave in the same run. Usage: ops [threads]
#include <fmt/format.h>

#include <functional>
#include <numeric>

#include "benchmarks/measure.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/exact_sum.h"
#include "kernels/ops/loss.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"

namespace ptrain::bench {
namespace {

struct Limits {
  double bandwidth_gb, gflops;
};

/// `count` numbers read or written in all, by the op's definition.
void moves(const Limits& limits, std::string_view name, double count, const std::function<void()>& op) {
  const double s = best_seconds(op), gb = 4e-9 * count;
  fmt::print("{:<34}{:>9.3f} ms {:>8.1f} GB/s    {:>6.1f} %\n", name, 1e3 * s, gb / s,
             100 * gb / s / limits.bandwidth_gb);
}

void computes(const Limits& limits, std::string_view name, double flops, const std::function<void()>& op) {
  const double s = best_seconds(op);
  fmt::print("{:<34}{:>9.3f} ms {:>8.1f} GFLOP/s {:>6.1f} %\n", name, 1e3 * s, 1e-9 * flops / s,
             1e-7 * flops / s / limits.gflops);
}

void attention(Context& context, const Limits& limits, const AttentionDims& dims) {
  const int64_t N = dims.B * dims.T, C = dims.H * dims.D, kv = dims.K * dims.D;
  const OwnedTensor q = random_tensor({N, C}, 1), k = random_tensor({N, kv}, 2),
                    v = random_tensor({N, kv}, 3);
  const OwnedTensor out({N, C}, DType::f32), dq({N, C}, DType::f32), dk({N, kv}, DType::f32),
      dv({N, kv}, DType::f32);
  const OwnedTensor dout = random_tensor({N, C}, 4), starts({N}, DType::i32);
  const OwnedTensor lse({dims.B, dims.H, dims.T}, DType::f32), delta({dims.B, dims.H, dims.T}, DType::f32);
  // Pairs of query and key that the causal mask leaves, two products of length D each; backward has five.
  const double pairs = static_cast<double>(dims.B * dims.H) * static_cast<double>(dims.T) *
                       static_cast<double>(dims.T + 1) / 2;
  const double flops = 4 * pairs * static_cast<double>(dims.D);
  computes(limits, fmt::format("attention forward, B={} T={}", dims.B, dims.T), flops, [&] {
    attention_forward(context, dims, q.view, k.view, v.view, starts.view, out.view, lse.view);
  });
  computes(limits, fmt::format("attention backward, B={} T={}", dims.B, dims.T), 2.5 * flops, [&] {
    attention_backward(context, dims, q.view, k.view, v.view, starts.view, out.view, lse.view, dout.view,
                       delta.view, dq.view, dk.view, dv.view);
  });
}

void decode_attention(Context& context, const Limits& limits, int64_t P) {
  const AttentionDims dims{
      .B = 1, .T = 0, .H = 9, .K = 3, .D = 64, .group = 3, .first_head = 0, .scale = 0.125};
  const OwnedTensor q = random_tensor({1, 576}, 1), keys = random_tensor({1, P, 192}, 2),
                    values = random_tensor({1, P, 192}, 3);
  const OwnedTensor out({1, 576}, DType::f32), lengths({1}, DType::i32);
  lengths.view.span<int32_t>()[0] = static_cast<int32_t>(P);
  moves(limits, fmt::format("attention decode, {} positions", P), static_cast<double>(2 * P * 192),
        [&] { attention_decode(context, dims, q.view, keys.view, values.view, lengths.view, out.view); });
}

/// SmolLM2-135M with 4 rows of 256 tokens.
void block_ops(Context& context, const Limits& limits) {
  const int64_t N = 1024, C = 576, F = 1536;
  const double rows = static_cast<double>(N * C);
  const OwnedTensor x = random_tensor({N, C}, 1), delta = random_tensor({N, C}, 2), w = random_tensor({C}, 3);
  const OwnedTensor sum({N, C}, DType::f32), y({N, C}, DType::f32), rstd({N}, DType::f32),
      dw({C}, DType::f32);
  moves(limits, "rmsnorm forward, with residual", 4 * rows,
        [&] { rmsnorm_forward(context, x.view, delta.view, w.view, sum.view, y.view, rstd.view, 1e-5); });
  moves(limits, "rmsnorm backward, with residual", 6 * rows,
        [&] { rmsnorm_backward(context, sum.view, w.view, rstd.view, delta.view, x.view, y.view, dw.view); });
  const OwnedTensor gate_up = random_tensor({N, 2 * F}, 4), act({N, F}, DType::f32),
                    dgate_up({N, 2 * F}, DType::f32);
  const OwnedTensor dact = random_tensor({N, F}, 5);
  moves(limits, "swiglu forward", 3.0 * static_cast<double>(N * F),
        [&] { swiglu_forward(context, gate_up.view, act.view); });
  moves(limits, "swiglu backward, with forward", 6.0 * static_cast<double>(N * F),
        [&] { swiglu_backward(context, gate_up.view, dact.view, dgate_up.view, act.view); });
  const OwnedTensor qk = random_tensor({N, 768}, 6), table = random_tensor({256, 32, 2}, 7),
                    positions({N}, DType::i32);
  std::iota(positions.view.span<int32_t>().begin(), positions.view.span<int32_t>().begin() + 256, 0);
  moves(limits, "rope", 2 * 768.0 * static_cast<double>(N),
        [&] { rope(context, qk.view, positions.view, table.view, 64, Rotation::forward); });
  moves(limits, "add", 3 * rows, [&] { add(context, x.view, sum.view); });
}

void vocabulary_ops(Context& context, const Limits& limits) {
  const int64_t V = 49152, R = 256, C = 576, N = 1024;
  const OwnedTensor logits = random_tensor({R, V}, 1), statistics({R, 3}, DType::f32),
                    targets({R}, DType::i32);
  const double all = static_cast<double>(R * V);
  moves(limits, "loss statistics, 256 rows", all,
        [&] { loss_statistics(context, logits.view, targets.view, 0, statistics.view); });
  moves(limits, "loss backward, 256 rows", 2 * all,
        [&] { loss_backward(context, logits.view, statistics.view, targets.view, 0, 1); });
  const OwnedTensor table = random_tensor({V, C}, 2), ids({N}, DType::i32), y({N, C}, DType::f32);
  for (int64_t n = 0; n < N; ++n)
    ids.view.span<int32_t>()[static_cast<size_t>(n)] = static_cast<int32_t>(n * 7919 % V);
  moves(limits, "embedding forward", 2.0 * static_cast<double>(N * C),
        [&] { embedding_forward(context, ids.view, table.view, 0, y.view); });
  moves(limits, "embedding backward", 3.0 * static_cast<double>(N * C),
        [&] { embedding_backward(context, ids.view, y.view, 0, table.view); });
}

void optimizer_ops(Context& context, const Limits& limits) {
  const int64_t count = int64_t{24} << 20;
  const OwnedTensor w = random_tensor({count}, 1), g = random_tensor({count}, 2), m({count}, DType::f32),
                    v({count}, DType::f32), one({1}, DType::f64);
  *one.view.as<double>() = 1;
  const double all = static_cast<double>(count);
  moves(limits, "adamw", 7 * all,
        [&] { adamw(context, {.learning_rate = 1e-3}, one.view, w.view, {}, g.view, m.view, v.view); });
  moves(limits, "sum of squares", all, [&] { sum_of_squares(context, g.view, one.view); });
  const OwnedTensor bins({exact_bins, 2}, DType::i64);
  moves(limits, "sum of squares in integers", all,
        [&] { exact_sum_of_squares(context, g.view, bins.view, Write::overwrite); });
  moves(limits, "copy", 2 * all, [&] { copy(context, g.view, m.view); });
  moves(limits, "fill", all, [&] { fill(context, m.view, 0); });
  const OwnedTensor half({count}, DType::bf16);
  moves(limits, "copy to bf16", 1.5 * all, [&] { copy(context, g.view, half.view); });
  moves(limits, "copy from bf16", 1.5 * all, [&] { copy(context, half.view, m.view); });
}

}  // namespace
}  // namespace ptrain::bench

int main(int argc, char** argv) {
  using namespace ptrain;
  Context context;
  context.threads = bench::threads_of(argc, argv);
  const bench::Limits limits{bench::read_bandwidth_gb(context.threads),
                             bench::sgemm_peak_gflops(context.threads)};
  fmt::print("{} threads: read bandwidth {:.1f} GB/s, sgemm {:.1f} GFLOP/s\n", context.threads,
             limits.bandwidth_gb, limits.gflops);
  fmt::print("What lies in a cache may exceed 100 % of the bandwidth.\n\n");
  bench::attention(context, limits,
                   {.B = 4, .T = 256, .H = 9, .K = 3, .D = 64, .group = 3, .first_head = 0, .scale = 0.125});
  bench::attention(context, limits,
                   {.B = 1, .T = 1536, .H = 9, .K = 3, .D = 64, .group = 3, .first_head = 0, .scale = 0.125});
  bench::decode_attention(context, limits, 1000);
  bench::block_ops(context, limits);
  bench::vocabulary_ops(context, limits);
  bench::optimizer_ops(context, limits);
}
