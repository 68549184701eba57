// ptrain bench gemm: the matrix products of a training step and a square one, against the arithmetic peak.
#include "launch/bench/gemm.h"

#include "kernels/base/log.h"
#include "kernels/ops/gemm.h"
#include "launch/bench/bench.h"
#include "launch/bench/timing.h"
#include "launch/peak_file.h"
#include "src/train/peak.h"

namespace ptrain::bench {
namespace {

/// A linear layer of the model: y (N, O) = x (N, C) w'.
struct Layer {
  std::string name;
  int64_t N, C, O;
  double calls;  // of each of its three products in a step

  double flops() const { return 2.0 * static_cast<double>(N) * static_cast<double>(C * O); }
};

std::vector<Layer> layers_of(const ModelSpec& spec, int64_t rows) {
  const double L = static_cast<double>(spec.L);
  const int64_t head_rows = std::min<int64_t>(rows, 512);  // the loss takes so many at once
  return {{"qkv", rows, spec.C, (spec.H + 2 * spec.K) * spec.D, L},
          {"attention out", rows, spec.H * spec.D, spec.C, L},
          {"gate and up", rows, spec.C, 2 * spec.F, L},
          {"down", rows, spec.F, spec.C, L},
          {fmt::format("head, {} rows", head_rows), head_rows, spec.C, spec.V,
           static_cast<double>(rows) / static_cast<double>(head_rows)}};
}

struct LayerTimes {
  double forward_s, input_s, weight_s;
  double sum_s() const { return forward_s + input_s + weight_s; }
};

LayerTimes times_of_layer(Context& context, const Layer& layer) {
  const OwnedTensor x = random_tensor({layer.N, layer.C}, 1), w = random_tensor({layer.O, layer.C}, 2);
  const OwnedTensor dy = random_tensor({layer.N, layer.O}, 3), y({layer.N, layer.O}, DType::f32);
  const OwnedTensor dx({layer.N, layer.C}, DType::f32), dw({layer.O, layer.C}, DType::f32);
  return {
      .forward_s = measure([&] { linear_forward(context, x.view, w.view, {}, y.view); }).best_s,
      .input_s = measure([&] { linear_backward_input(context, dy.view, w.view, dx.view); }).best_s,
      .weight_s = measure([&] { linear_backward_weight(context, dy.view, x.view, dw.view); }).best_s,
  };
}

/// Keeps the node's figures: those of its ranks together. A collective.
void keep_peak(Runtime& runtime, const NodePeak& mine) {
  const auto& hosts = runtime.session.hosts();
  const auto leader = std::ranges::find(hosts, hosts[static_cast<size_t>(runtime.world.rank())]);
  const auto node = runtime.world.split(static_cast<int>(leader - hosts.begin()), runtime.world.rank());
  const NodePeak sum{.sgemm_flops = sum_over_ranks(*node, mine.sgemm_flops),
                     .fma_flops = sum_over_ranks(*node, mine.fma_flops),
                     .read_bytes_per_s = sum_over_ranks(*node, mine.read_bytes_per_s)};
  if (!has_core_for_each_thread(runtime)) {
    if (runtime.is_first()) {
      log::warn(
          "{} ranks of {} threads are more than the {} cores: the result is not kept for training's mfu; run "
          "ptrain bench gemm without mpirun",
          runtime.session.ranks_on_node(), runtime.context.threads, node_key(runtime).threads);
    }
    return;
  }
  const auto file = peak_file(runtime.arguments);
  if (file && node->rank() == 0) write_peak(*file, node_key(runtime), sum);
}

}  // namespace

double square_flops(Context& context, int64_t n) {
  const OwnedTensor a = random_tensor({n, n}, 1), b = random_tensor({n, n}, 2), c({n, n}, DType::f32);
  const Times times = measure([&] { linear_forward(context, a.view, b.view, {}, c.view); }, 1.0);
  return 2.0 * static_cast<double>(n) * static_cast<double>(n * n) / times.best_s;
}

Report run_gemm(Runtime& runtime, const LoadedConfig& loaded) {
  const ModelSpec spec = spec_or_default(loaded);
  const int64_t rows = runtime.arguments.integer("batch", 4, 1, 1 << 20) *
                       runtime.arguments.integer("sequence-length", 256, 1, 1 << 20);
  Context& context = runtime.context;
  runtime.world.barrier();  // all ranks are measured while all work
  const double fma = fma_flops(context.threads), read = read_bytes_per_s(context.threads);
  const double square = square_flops(context, square_size);
  double best = square, flops = 0, seconds = 0;
  Report report;
  const auto cell = [&](double rate) {
    return fmt::format("{:>12.1f} {:>5.1f} %", 1e-9 * rate, 100 * rate / fma);
  };
  Json shapes = Json::array();
  std::string table = fmt::format("{:<18}{:>20}{:>20}{:>20}\n", "GFLOP/s, share", "forward", "input gradient",
                                  "weight gradient");
  for (const Layer& layer : layers_of(spec, rows)) {
    const LayerTimes times = times_of_layer(context, layer);
    table += fmt::format("{:<18}", layer.name);
    for (double s : {times.forward_s, times.input_s, times.weight_s}) {
      best = std::max(best, layer.flops() / s);
      table += cell(layer.flops() / s);
    }
    table += "\n";
    shapes.push_back({{"name", layer.name},
                      {"rows", layer.N},
                      {"inputs", layer.C},
                      {"outputs", layer.O},
                      {"forward_s", times.forward_s},
                      {"input_gradient_s", times.input_s},
                      {"weight_gradient_s", times.weight_s}});
    flops += 3 * layer.calls * layer.flops();
    seconds += layer.calls * times.sum_s();
  }
  runtime.world.barrier();
  keep_peak(runtime, {.sgemm_flops = best, .fma_flops = fma, .read_bytes_per_s = read});
  report.text = fmt::format(
      "{}, {} threads of this rank, {} ranks\nFMA peak {:.1f} GFLOP/s, reading {:.1f} "
      "GB/s\n\n{}{:<18}{}\n{:<18}{}\n"
      "{:<18}{}\n",
      cpu_model(), context.threads, runtime.world.size(), 1e-9 * fma, 1e-9 * read, table,
      fmt::format("square {}", square_size), cell(square), "whole step", cell(flops / seconds), "best",
      cell(best));
  report.values = {{"threads", context.threads},    {"fma_flops", fma},
                   {"read_bytes_per_s", read},      {"square_flops", square},
                   {"step_flops", flops / seconds}, {"sgemm_flops", best},
                   {"step_seconds", seconds},       {"shapes", shapes}};
  return report;
}

}  // namespace ptrain::bench
