// ptrain bench step: whole training steps of a model on made-up rows, from the process's start on.
#include <sys/resource.h>

#include <ctime>
#include <fstream>
#include <sstream>

#include "launch/bench/bench.h"
#include "launch/bench/gemm.h"
#include "launch/bench/timing.h"
#include "parallel/comm/agree.h"
#include "src/data/batches.h"
#include "src/train/config_check.h"
#include "src/train/model_files.h"
#include "src/train/run_plan.h"
#include "src/train/trainer.h"

#include <unistd.h>

namespace ptrain::bench {
namespace {

/// Seconds since this process was started, in hundredths: as the system counts them, both from the machine's
/// start.
double process_age_s() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t name_end = text.rfind(')');  // the program's name may hold blanks
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string word;
  for (int field = 3; field <= 22; ++field) fields >> word;  // proc(5): 22 is starttime
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) - std::stod(word) / ticks;
}

/// Full rows of ids that a few lines of any language make: x <- (1103515245 x + 12345) mod 2^31 from x = 1,
/// id = floor(x / 256) mod V. benchmarks/peers/rows.py makes the same.
std::vector<Document> made_up_rows(int64_t count, int64_t T, int64_t V) {
  std::vector<Document> rows(static_cast<size_t>(count));
  uint64_t x = 1;
  for (Document& row : rows) {
    for (int64_t t = 0; t < T; ++t) {
      x = (x * 1103515245 + 12345) & 0x7fffffff;
      row.ids.push_back(static_cast<int32_t>((x >> 8) % static_cast<uint64_t>(V)));
    }
    row.labels = row.ids;
  }
  return rows;
}

/// Flags and what follows from them, on top of what the keys say.
LoadedConfig with_flags(const Runtime& runtime, LoadedConfig loaded) {
  const Arguments& arguments = runtime.arguments;
  Config& config = loaded.config;
  if (arguments.has("sequence-length") || !loaded.is_set("data.sequence_length"))
    config.data.sequence_length = arguments.integer("sequence-length", 256, 2, 1 << 20);
  if (arguments.has("batch") || !loaded.is_set("batch.micro"))
    config.batch.micro = arguments.integer("batch", 4, 1, 1 << 20);
  if (!loaded.is_set("batch.global"))
    config.batch.global = config.batch.micro * data_ranks(config, runtime.world.size());
  config.data.packing = false;
  config.data.shuffle = false;
  return loaded;
}

struct Memory {
  double peak_bytes = 0;  // of the rank with the most
  double sum_bytes = 0;
};

Memory resident_memory(Communicator& world) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  double bytes = 1024.0 * static_cast<double>(usage.ru_maxrss);
  Memory memory{.peak_bytes = bytes, .sum_bytes = sum_over_ranks(world, bytes)};
  world.all_reduce(Tensor(&memory.peak_bytes, {1}, DType::f64), Reduce::max);
  return memory;
}

void load_or_make_weights(Runtime& runtime, const Config& config, Trainer& trainer) {
  if (config.model.init == Config::Init::random)
    return initialise_weights(static_cast<uint64_t>(config.train.seed), trainer);
  std::optional<HfDir> directory;
  agreed(runtime.world, [&] { directory = HfDir::open(config.model.path); });
  load_weights(runtime.world, *directory, trainer);
}

}  // namespace

Report run_step(Runtime& runtime, const LoadedConfig& from) {
  const LoadedConfig loaded = with_flags(runtime, from);
  const Config& config = loaded.config;
  const int64_t steps = runtime.arguments.integer("steps", 5, 1, 100000);
  ModelSpec spec;
  std::optional<Plan> plan;
  agreed(runtime.world, [&] {
    check_config(loaded, {.ranks = runtime.world.size()});
    refuse_unbuilt(loaded, Scope::this_machine);
    spec = read_model_spec(config.model.path);
    plan =
        plan_of(config, spec, runtime.world.size(), compute_of(config, found_device(runtime.context.device)));
  });
  const MemoryDocuments rows(
      made_up_rows(config.batch.global * (steps + 1), config.data.sequence_length, spec.V));
  const Batches batches(rows, {.sequence_length = config.data.sequence_length, .packing = RowPacking::off},
                        {.micro = config.batch.micro, .global = config.batch.global, .data = plan->mesh.data},
                        {.shuffle = Shuffle::off});
  Trainer trainer(spec, config.optimizer, *plan, runtime.world, runtime.device);
  load_or_make_weights(runtime, config, trainer);

  // The first step touches memory for the first time: it is told apart from the others.
  const double start_s = process_age_s();
  const StepResult first = trainer.step(batches, 1, steps + 1);
  std::vector<double> seconds;
  StepResult last;
  for (int64_t step = 2; step <= steps + 1; ++step) {
    last = trainer.step(batches, step, steps + 1);
    seconds.push_back(last.step_s);
  }
  const Memory memory = resident_memory(runtime.world);
  const Times times = times_of(seconds);
  runtime.world.barrier();
  const double sgemm = sum_over_ranks(runtime.world, square_flops(runtime.context));

  const double tokens = static_cast<double>(first.tokens);
  const double flops = tokens * training_flops_per_token(spec, config.data.sequence_length);
  Report report;
  report.values = {{"ranks", runtime.world.size()},
                   {"threads", runtime.context.threads},
                   {"rows", config.batch.global},
                   {"sequence_length", config.data.sequence_length},
                   {"median_s", times.median_s},
                   {"best_s", times.best_s},
                   {"first_s", first.step_s},
                   {"tokens_per_s", tokens / times.median_s},
                   {"flops", flops},
                   {"sgemm_flops", sgemm},
                   {"share_of_sgemm", flops / times.best_s / sgemm},
                   {"peak_memory_bytes", memory.peak_bytes},
                   {"memory_bytes_of_all_ranks", memory.sum_bytes},
                   {"start_s", start_s},
                   {"first_loss", first.loss},
                   {"last_loss", last.loss}};
  report.text = fmt::format(
      "{} rows of {} tokens, {} steps on {} ranks of {} threads, {}\n"
      "step            median {:.3f} s, best {:.3f} s, first {:.3f} s\n"
      "tokens/s        median {:.0f}, best {:.0f}\n"
      "arithmetic      {:.4g} TFLOP a step; at best {:.1f} GFLOP/s, {:.1f} % of the measured sgemm rate "
      "{:.1f}\n"
      "memory          {:.2f} GB at most on a rank, {:.2f} GB on all\n"
      "start           {:.2f} s from the process's start to the first step's\n"
      "loss            {:.6f} in the first step, {:.6f} in the last\n",
      config.batch.global, config.data.sequence_length, steps, runtime.world.size(), runtime.context.threads,
      to_string(plan->mesh), times.median_s, times.best_s, first.step_s, tokens / times.median_s,
      tokens / times.best_s, 1e-12 * flops, 1e-9 * flops / times.best_s, 100 * flops / times.best_s / sgemm,
      1e-9 * sgemm, 1e-9 * memory.peak_bytes, 1e-9 * memory.sum_bytes, start_s, first.loss, last.loss);
  return report;
}

}  // namespace ptrain::bench
