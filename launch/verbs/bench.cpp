// ptrain bench NAME: how fast this machine does the parts of the work. The benchmarks are in launch/bench.
#include <cstdio>

#include "launch/bench/bench.h"
#include "launch/verbs.h"
#include "src/train/peak.h"

namespace ptrain {
namespace {

struct Benchmark {
  std::string_view name;
  bool needs_model;
  bench::Report (*run)(Runtime&, const LoadedConfig&);
};

constexpr Benchmark benchmarks[] = {
    {"gemm", false, bench::run_gemm}, {"ops", false, bench::run_ops},
    {"step", true, bench::run_step},  {"decode", true, bench::run_decode},
    {"disk", false, bench::run_disk}, {"collectives", false, bench::run_collectives},
};

const Benchmark& find_benchmark(const std::string& name) {
  std::string names;
  for (const Benchmark& benchmark : benchmarks) {
    if (benchmark.name == name) return benchmark;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", benchmark.name);
  }
  fail(ExitCode::usage, "there is no benchmark \"{}\"; there are {}", name, names);
}

}  // namespace

ModelSpec bench::spec_or_default(const LoadedConfig& loaded) {
  if (!loaded.config.model.path.empty()) return read_model_spec(loaded.config.model.path);
  ModelSpec spec;
  spec.V = 49152, spec.C = 576, spec.L = 30, spec.H = 9, spec.K = 3, spec.D = 64, spec.F = 1536,
  spec.max_positions = 8192;
  spec.is_tied = true;
  spec.rope.theta = 100000;
  return spec;
}

std::string bench::device_name(const Runtime& runtime) {
  if (runtime.gpu == nullptr) return cpu_model();
  return runtime::device_info(runtime.context.device.index).name;
}

int run_bench(const Arguments& arguments) {
  const Benchmark& benchmark = find_benchmark(arguments.words[0]);
  check(benchmark.name == "disk" || arguments.words.size() == 1, ExitCode::usage,
        "unexpected \"{}\" behind bench {}", arguments.words.back(), benchmark.name);
  std::vector<std::string_view> required;
  if (benchmark.needs_model) required.push_back("model.path");
  LoadedConfig loaded = load_config(arguments, required);
  if (benchmark.name == "disk") loaded.config.device = Config::Device::cpu;  // needs no GPU
  return run_on_ranks(arguments, loaded.config, [&](Runtime& runtime) {
    const bench::Report report = benchmark.run(runtime, loaded);
    if (!runtime.is_first()) return 0;
    if (arguments.has("json")) {
      fmt::print("{}\n", report.values.dump());
    } else {
      fmt::print("{}", report.text);
    }
    return 0;
  });
}

}  // namespace ptrain
