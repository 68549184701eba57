// ptrain bench ops: every op of a training step but the matrix products, each against the limit that it meets
// first, arithmetic or memory. Sizes are those of the model, or SmolLM2-135M's.
#include "launch/bench/bench.h"
#include "launch/bench/limits.h"
#include "launch/bench/op_cases.h"
#include "src/io/json.h"

namespace ptrain::bench {
namespace {

/// Of a CPU: multiply-adds on registers, and reading. Of a GPU: the square product, and copies.
struct Limits {
  double flops_per_s, bytes_per_s;
};

Limits limits_of(const Context& context, DType dtype) {
  if (context.device.kind == DeviceKind::cpu)
    return {.flops_per_s = fma_flops(context.threads), .bytes_per_s = read_bytes_per_s(context.threads)};
  return {.flops_per_s = square_flops(context, dtype), .bytes_per_s = copy_bytes_per_s(context)};
}

/// A rate and its share of the limit; blanks where there is nothing to do.
std::string cell(double work, double s, double limit, double unit) {
  if (work == 0) return fmt::format("{:>10}{:>9}", "", "");
  return fmt::format("{:>10.3g}{:>7.1f} %", unit * work / s, 100 * work / s / limit);
}

void add_row(Report& report, const OpCase& op, double s, const Limits& limits, DType dtype) {
  report.text +=
      fmt::format("{:<28}{:>10.4f}{:>7.0f}{:>12.2f}{}{}\n", op.name, 1e3 * s, op.calls, 1e3 * s * op.calls,
                  cell(op.bytes, s, limits.bytes_per_s, 1e-9), cell(op.flops, s, limits.flops_per_s, 1e-12));
  report.values["ops"].push_back(
      {{"name", op.name},
       {"seconds", s},
       {"calls", op.calls},
       {"bytes", op.bytes},
       {"flops", op.flops},
       {"dtype", name_of(dtype)},
       {"limit_s", std::max(op.bytes / limits.bytes_per_s, op.flops / limits.flops_per_s)}});
}

}  // namespace

Report run_ops(Runtime& runtime, const LoadedConfig& loaded) {
  const ModelSpec spec = spec_or_default(loaded);
  const int64_t B = runtime.arguments.integer("batch", 4, 1, 1 << 20);
  const int64_t T = runtime.arguments.integer("sequence-length", 256, 1, 1 << 20);
  const Compute compute = compute_of(loaded.config, found_device(runtime.context.device));
  const DType dtype = state_types(compute.precision).param;
  const bool is_cpu = runtime.gpu == nullptr;
  runtime.world.barrier();
  const Limits limits = limits_of(runtime.context, dtype);
  Report report;
  report.values = {{"threads", runtime.context.threads},
                   {"device", device_name(runtime)},
                   {is_cpu ? "fma_flops" : "peak_flops", limits.flops_per_s},
                   {is_cpu ? "read_bytes_per_s" : "copy_bytes_per_s", limits.bytes_per_s},
                   {"ops", Json::array()}};
  report.text = fmt::format(
      "{}, {} rows of {} tokens, {}; {} {:.4g} TFLOP/s, {} {:.1f} GB/s\n{}\n"
      "{:<28}{:>10}{:>7}{:>12}{:>10}{:>9}{:>10}{:>9}\n",
      device_name(runtime), B, T, name_of(dtype), is_cpu ? "FMA peak" : "sustained product",
      1e-12 * limits.flops_per_s, is_cpu ? "reading" : "copying", 1e-9 * limits.bytes_per_s,
      is_cpu ? "What lies in a cache may need less than the limit of the memory."
             : "Medians of calls in a row, each on memory that the L2 cache does not hold.",
      "op", "ms", "calls", "ms a step", "GB/s", "share", "TFLOP/s", "share");
  Workbench bench(runtime.context, sizes_of(spec, B, T, compute));
  double sum_s = 0;
  for (const OpCase& op : op_cases(bench, spec, B, T, compute)) {
    const double s = bench.seconds(op.prepare);
    add_row(report, op, s, limits, dtype);
    sum_s += s * op.calls;
  }
  report.text += fmt::format("{:<45}{:>12.1f}\n", "all, in a step", 1e3 * sum_s);
  report.values["step_s"] = sum_s;
  return report;
}

}  // namespace ptrain::bench
