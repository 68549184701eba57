// ptrain bench gemm: the matrix products of a training step and a square one, against the best rate of all.
#include "kernels/base/log.h"
#include "launch/bench/bench.h"
#include "launch/bench/limits.h"
#include "launch/bench/products.h"
#include "launch/peak_file.h"
#include "src/io/json.h"
#include "src/model/activations.h"
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
  const int64_t head_rows = std::min(rows, head_chunk_rows);  // the loss takes so many at once
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

LayerTimes times_of_layer(Workbench& bench, const ProductTypes& types, const Layer& layer) {
  const auto seconds = [&](ProductKind kind) {
    return bench.seconds(product(bench.context(), kind, types, layer.N, layer.C, layer.O));
  };
  return {.forward_s = seconds(ProductKind::forward),
          .input_s = seconds(ProductKind::input_gradient),
          .weight_s = seconds(ProductKind::weight_gradient)};
}

/// Keeps the node's figures: those of its ranks together. A collective.
void keep_peak(Runtime& runtime, Config::Precision precision, const NodePeak& mine) {
  const auto& hosts = runtime.session.hosts();
  const auto leader = std::ranges::find(hosts, hosts[static_cast<size_t>(runtime.world.rank())]);
  const auto node = runtime.world.split(static_cast<int>(leader - hosts.begin()), runtime.world.rank());
  const NodePeak sum{.sgemm_flops = sum_over_ranks(*node, mine.sgemm_flops),
                     .fma_flops = sum_over_ranks(*node, mine.fma_flops),
                     .read_bytes_per_s = sum_over_ranks(*node, mine.read_bytes_per_s)};
  if (runtime.gpu == nullptr && precision != Config::Precision::fp32) return;  // a CPU computes in f32
  if (runtime.gpu == nullptr && !has_core_for_each_thread(runtime)) {
    if (runtime.is_first()) {
      log::warn(
          "{} ranks of {} threads are more than the {} cores: the result is not kept for training's mfu; run "
          "ptrain bench gemm without mpirun",
          runtime.session.ranks_on_node(), runtime.context.threads, node_key(runtime, precision).threads);
    }
    return;
  }
  const auto file = peak_file(runtime.arguments);
  if (file && node->rank() == 0) write_peak(*file, node_key(runtime, precision), sum);
}

/// What was measured of all products.
struct Rows {
  std::vector<Layer> layers;
  std::vector<LayerTimes> times;
  double square = 0;              // FLOP/s
  double best = 0;                // FLOP/s of the fastest product
  double flops = 0, seconds = 0;  // of all in a step
};

Rows measure_rows(Workbench& bench, const ProductTypes& types, std::vector<Layer> layers) {
  Rows rows{.layers = std::move(layers)};
  rows.best = rows.square = square_flops(bench.context(), types.operands);
  for (const Layer& layer : rows.layers) {
    const LayerTimes& times = rows.times.emplace_back(times_of_layer(bench, types, layer));
    for (double s : {times.forward_s, times.input_s, times.weight_s})
      rows.best = std::max(rows.best, layer.flops() / s);
    rows.flops += 3 * layer.calls * layer.flops();
    rows.seconds += layer.calls * times.sum_s();
  }
  return rows;
}

/// `limit`: what the shares are of.
std::string table_of(const Rows& rows, double limit, int64_t square) {
  const auto cell = [&](double rate) {
    return fmt::format("{:>14.3f} {:>5.1f} %", 1e-12 * rate, 100 * rate / limit);
  };
  std::string text = fmt::format("{:<18}{:>22}{:>22}{:>22}\n", "TFLOP/s, share", "forward", "input gradient",
                                 "weight gradient");
  for (size_t i = 0; i < rows.layers.size(); ++i) {
    const Layer& layer = rows.layers[i];
    text += fmt::format("{:<18}", layer.name);
    for (double s : {rows.times[i].forward_s, rows.times[i].input_s, rows.times[i].weight_s})
      text += cell(layer.flops() / s);
    text += "\n";
  }
  return text + fmt::format("{:<18}{}\n{:<18}{}\n{:<18}{}\n", fmt::format("square {}", square),
                            cell(rows.square), "whole step", cell(rows.flops / rows.seconds), "best",
                            cell(rows.best));
}

Json shapes_of(const Rows& rows) {
  Json shapes = Json::array();
  for (size_t i = 0; i < rows.layers.size(); ++i) {
    shapes.push_back({{"name", rows.layers[i].name},
                      {"rows", rows.layers[i].N},
                      {"inputs", rows.layers[i].C},
                      {"outputs", rows.layers[i].O},
                      {"forward_s", rows.times[i].forward_s},
                      {"input_gradient_s", rows.times[i].input_s},
                      {"weight_gradient_s", rows.times[i].weight_s}});
  }
  return shapes;
}

}  // namespace

Report run_gemm(Runtime& runtime, const LoadedConfig& loaded) {
  const ModelSpec spec = spec_or_default(loaded);
  const int64_t B = runtime.arguments.integer("batch", 4, 1, 1 << 20);
  const int64_t T = runtime.arguments.integer("sequence-length", 256, 1, 1 << 20);
  const Compute compute = compute_of(loaded.config, found_device(runtime.context.device));
  const bool is_cpu = runtime.gpu == nullptr;
  const int threads = runtime.context.threads;
  const ProductTypes types = product_types(compute.precision);
  runtime.world.barrier();  // all ranks are measured while all work
  const double fma = is_cpu ? fma_flops(threads) : 0;
  const double memory = is_cpu ? read_bytes_per_s(threads) : copy_bytes_per_s(runtime.context);
  Workbench bench(runtime.context, sizes_of(spec, B, T, compute));
  const Rows rows = measure_rows(bench, types, layers_of(spec, B * T));
  runtime.world.barrier();
  keep_peak(runtime, compute.precision,
            {.sgemm_flops = rows.best, .fma_flops = is_cpu ? fma : rows.best, .read_bytes_per_s = memory});

  const int64_t square = square_size(runtime.context.device.kind);
  Report report;
  report.values = {{"ranks", runtime.world.size()},  {"threads", threads},
                   {"device", device_name(runtime)}, {"dtype", name_of(types.operands)},
                   {"square_flops", rows.square},    {"step_flops", rows.flops / rows.seconds},
                   {"peak_flops", rows.best},        {"step_seconds", rows.seconds},
                   {"shapes", shapes_of(rows)}};
  if (is_cpu) {
    report.values.update({{"fma_flops", fma}, {"read_bytes_per_s", memory}, {"sgemm_flops", rows.best}});
    report.text = fmt::format(
        "{}, {} threads of this rank, {} ranks, {}\nFMA peak {:.3f} TFLOP/s, the shares are of it; reading "
        "{:.1f} GB/s\n\n{}",
        device_name(runtime), threads, runtime.world.size(), name_of(types.operands), 1e-12 * fma,
        1e-9 * memory, table_of(rows, fma, square));
  } else {
    report.values["copy_bytes_per_s"] = memory;
    report.text = fmt::format(
        "{}, {} ranks, {}; medians of calls in a row, operands outside of the L2 cache; copies {:.0f} GB/s\n"
        "shares are of the best product\n\n{}",
        device_name(runtime), runtime.world.size(), name_of(types.operands), 1e-9 * memory,
        table_of(rows, rows.best, square));
  }
  return report;
}

}  // namespace ptrain::bench
