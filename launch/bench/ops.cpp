// ptrain bench ops: every op of a training step but the matrix products, each against the limit that it meets
// first, arithmetic or memory. Sizes are those of the model, or SmolLM2-135M's.
#include <cmath>
#include <numeric>

#include "kernels/ops/activation.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/loss.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"
#include "launch/bench/bench.h"
#include "launch/bench/timing.h"

namespace ptrain::bench {
namespace {

/// What one call does by its definition: the limits come from these.
struct Work {
  double numbers = 0;  // f32 read or written
  double flops = 0;
  double calls = 0;  // in a step
};

struct Limits {
  double flops_per_s, bytes_per_s;
};

/// Measures ops and writes the table.
class Table {
 public:
  Table(Report& report, const Limits& limits) : report_(report), limits_(limits) {
    report_.text += fmt::format("{:<28}{:>10}{:>8}{:>12}{:>12}{:>14}\n", "op", "ms", "calls", "ms a step",
                                "limit ms", "share of it");
  }

  void add(const char* name, const Work& work, const std::function<void()>& op) {
    const double s = measure(op).best_s;
    const double limit = std::max(4 * work.numbers / limits_.bytes_per_s, work.flops / limits_.flops_per_s);
    report_.text += fmt::format("{:<28}{:>10.3f}{:>8.0f}{:>12.1f}{:>12.3f}{:>12.0f} %\n", name, 1e3 * s,
                                work.calls, 1e3 * s * work.calls, 1e3 * limit, 100 * limit / s);
    report_.values["ops"].push_back(
        {{"name", name}, {"seconds", s}, {"calls", work.calls}, {"limit_s", limit}});
    sum_s_ += s * work.calls;
  }

  double sum_s() const { return sum_s_; }

 private:
  Report& report_;
  Limits limits_;
  double sum_s_ = 0;
};

void attention_ops(Context& context, Table& table, const ModelSpec& spec, int64_t B, int64_t T) {
  const AttentionDims dims{.B = B,
                           .T = T,
                           .H = spec.H,
                           .K = spec.K,
                           .D = spec.D,
                           .group = spec.H / spec.K,
                           .scale = 1 / std::sqrt(static_cast<double>(spec.D))};
  const int64_t N = B * T, C = spec.H * spec.D, kv = spec.K * spec.D;
  const OwnedTensor q = random_tensor({N, C}, 1), k = random_tensor({N, kv}, 2),
                    v = random_tensor({N, kv}, 3);
  const OwnedTensor dout = random_tensor({N, C}, 4), starts({N}, DType::i32), out({N, C}, DType::f32);
  const OwnedTensor dq({N, C}, DType::f32), dk({N, kv}, DType::f32), dv({N, kv}, DType::f32);
  const OwnedTensor lse({B, spec.H, T}, DType::f32), delta({B, spec.H, T}, DType::f32);
  // Pairs of query and key that the causal mask leaves, two products each; backward has five.
  const double pairs =
      static_cast<double>(B * spec.H) * static_cast<double>(T) * static_cast<double>(T + 1) / 2;
  const double product = 2 * pairs * static_cast<double>(spec.D), L = static_cast<double>(spec.L);
  const double numbers = static_cast<double>(2 * N * (C + kv));
  table.add("attention", {numbers, 2 * product, L}, [&] {
    attention_forward(context, dims, q.view, k.view, v.view, starts.view, out.view, lse.view);
  });
  table.add("attention backward", {2 * numbers, 5 * product, L}, [&] {
    attention_backward(context, dims, q.view, k.view, v.view, starts.view, out.view, lse.view, dout.view,
                       delta.view, dq.view, dk.view, dv.view);
  });
  const int64_t columns = C + kv;
  const OwnedTensor qk = random_tensor({N, columns}, 5), angles({T, spec.D / 2, 2}, DType::f32),
                    positions({N}, DType::i32);
  for (int64_t b = 0; b < B; ++b)
    std::iota(positions.view.as<int32_t>() + b * T, positions.view.as<int32_t>() + (b + 1) * T, 0);
  fill_rope_table(spec, angles.view);
  table.add("rope, and backward", {2 * static_cast<double>(N * columns), 0, 2 * L},
            [&] { rope(context, qk.view, positions.view, angles.view, spec.D, Rotation::forward); });
}

void row_ops(Context& context, Table& table, const ModelSpec& spec, int64_t N) {
  const int64_t C = spec.C, F = spec.F;
  const double rows = static_cast<double>(N * C), wide = static_cast<double>(N * F),
               L = static_cast<double>(spec.L);
  const OwnedTensor x = random_tensor({N, C}, 1), delta = random_tensor({N, C}, 2), w = random_tensor({C}, 3);
  const OwnedTensor sum({N, C}, DType::f32), y({N, C}, DType::f32), rstd({N}, DType::f32),
      dw({C}, DType::f32);
  table.add("rmsnorm with residual", {4 * rows, 0, 2 * L},
            [&] { rmsnorm_forward(context, x.view, delta.view, w.view, sum.view, y.view, rstd.view, 1e-5); });
  table.add("rmsnorm backward", {4 * rows, 0, 2 * L}, [&] {
    rmsnorm_backward(context, sum.view, w.view, rstd.view, delta.view, x.view, y.view, dw.view);
  });
  table.add("add", {3 * rows, 0, L}, [&] { add(context, x.view, sum.view); });
  const OwnedTensor gate_up = random_tensor({N, 2 * F}, 4), dact = random_tensor({N, F}, 5);
  const OwnedTensor act({N, F}, DType::f32), dgate_up({N, 2 * F}, DType::f32);
  table.add("swiglu", {3 * wide, 0, L}, [&] { swiglu_forward(context, gate_up.view, act.view); });
  table.add("swiglu backward", {6 * wide, 0, L},
            [&] { swiglu_backward(context, gate_up.view, dact.view, dgate_up.view, act.view); });
}

void vocabulary_ops(Context& context, Table& table, const ModelSpec& spec, int64_t N) {
  const int64_t R = std::min<int64_t>(N, 512), C = spec.C;
  const double all = static_cast<double>(R * spec.V), calls = static_cast<double>(N) / static_cast<double>(R);
  const OwnedTensor logits = random_tensor({R, spec.V}, 1), statistics({R, 3}, DType::f32),
                    targets({R}, DType::i32);
  table.add("loss statistics", {all, 0, calls},
            [&] { loss_statistics(context, logits.view, targets.view, 0, statistics.view); });
  table.add("loss backward", {2 * all, 0, calls},
            [&] { loss_backward(context, logits.view, statistics.view, targets.view, 0, 1); });
  const OwnedTensor weights = random_tensor({spec.V, C}, 2), dweights({spec.V, C}, DType::f32),
                    ids({N}, DType::i32);
  const OwnedTensor y({N, C}, DType::f32);
  for (int64_t n = 0; n < N; ++n) ids.view.as<int32_t>()[n] = static_cast<int32_t>(n * 7919 % spec.V);
  const double rows = static_cast<double>(N * C);
  table.add("embedding", {2 * rows, 0, 1},
            [&] { embedding_forward(context, ids.view, weights.view, 0, y.view); });
  table.add("embedding backward", {3 * rows, 0, 1},
            [&] { embedding_backward(context, ids.view, y.view, 0, dweights.view); });
}

void optimizer_ops(Context& context, Table& table, const ModelSpec& spec) {
  const int64_t count = std::min<int64_t>(parameter_count(spec), int64_t{32} << 20);
  const double n = static_cast<double>(count), calls = static_cast<double>(parameter_count(spec)) / n;
  const OwnedTensor w = random_tensor({count}, 1), g = random_tensor({count}, 2), m({count}, DType::f32),
                    v({count}, DType::f32), one({1}, DType::f64);
  *one.view.as<double>() = 1;
  table.add("fill of gradients", {n, 0, calls}, [&] { fill(context, m.view, 0); });
  table.add("norm of gradients", {n, 0, calls}, [&] { sum_of_squares(context, g.view, one.view); });
  const AdamWStep step{.learning_rate = 1e-6, .weight_decay = 0.1};
  table.add("adamw", {7 * n, 0, calls},
            [&] { adamw(context, step, one.view, w.view, {}, g.view, m.view, v.view); });
}

}  // namespace

Report run_ops(Runtime& runtime, const LoadedConfig& loaded) {
  const ModelSpec spec = spec_or_default(loaded);
  const int64_t B = runtime.arguments.integer("batch", 4, 1, 1 << 20);
  const int64_t T = runtime.arguments.integer("sequence-length", 256, 1, 1 << 20);
  Context& context = runtime.context;
  runtime.world.barrier();
  const Limits limits{.flops_per_s = fma_flops(context.threads),
                      .bytes_per_s = read_bytes_per_s(context.threads)};
  Report report;
  report.values = {{"threads", context.threads},
                   {"fma_flops", limits.flops_per_s},
                   {"read_bytes_per_s", limits.bytes_per_s},
                   {"ops", Json::array()}};
  report.text = fmt::format(
      "{} rows of {} tokens, {} threads; FMA peak {:.1f} GFLOP/s, reading {:.1f} GB/s\n"
      "What lies in a cache may need less than the limit of the memory.\n",
      B, T, context.threads, 1e-9 * limits.flops_per_s, 1e-9 * limits.bytes_per_s);
  Table table(report, limits);
  attention_ops(context, table, spec, B, T);
  row_ops(context, table, spec, B * T);
  vocabulary_ops(context, table, spec, B * T);
  optimizer_ops(context, table, spec);
  report.text += fmt::format("{:<46}{:>12.1f}\n", "all, in a step", 1e3 * table.sum_s());
  report.values["step_s"] = table.sum_s();
  return report;
}

}  // namespace ptrain::bench
