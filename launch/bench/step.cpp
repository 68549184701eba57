// ptrain bench step: whole training steps of a model on made-up rows, from the process's start on.
#include <sys/resource.h>

#include <ctime>
#include <fstream>
#include <sstream>

#include "launch/bench/bench.h"
#include "launch/bench/limits.h"
#include "launch/bench/products.h"
#include "launch/bench/random_weights.h"
#include "launch/bench/timing.h"
#include "parallel/comm/agree.h"
#include "src/data/batches.h"
#include "src/train/config_check.h"
#include "src/train/config_keys.h"
#include "src/train/device_check.h"
#include "src/train/model_files.h"
#include "src/train/plan_choice.h"
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

std::string precision_name(Config::Precision precision) {
  Config config;
  config.precision = precision;
  return value_text(config, "precision");
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

/// What a rank holds where it trains: of a CPU its resident set, of a GPU what is not free, libraries
/// included (and other processes, where there are any).
class MemoryWatch {
 public:
  explicit MemoryWatch(Device device) : device_(device) {}

  void look() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    double bytes = 1024.0 * static_cast<double>(usage.ru_maxrss);
    if (device_.kind == DeviceKind::cuda) {
      const runtime::DeviceInfo info = runtime::device_info(device_.index);
      bytes = static_cast<double>(info.total_bytes - info.free_bytes);
    }
    peak_bytes_ = std::max(peak_bytes_, bytes);
  }
  double peak_bytes() const { return peak_bytes_; }

 private:
  Device device_;
  double peak_bytes_ = 0;
};

void load_or_make_weights(Runtime& runtime, const Config& config, const BaseModel& base, Trainer& trainer) {
  if (config.model.init == Config::Init::random) {
    if (runtime.gpu != nullptr) return make_up_weights(trainer);
    return initialise_weights(static_cast<uint64_t>(config.train.seed), trainer);
  }
  std::optional<HfDir> directory;
  agreed(runtime.world, [&] { directory = HfDir::open(config.model.path); });
  load_weights(runtime.world, *directory, base, trainer);
}

/// What the steps of a trainer took.
struct Run {
  double start_s = 0;  // from the process's start to the first step's
  StepResult first, last;
  Times times;            // without the first
  double peak_bytes = 0;  // of this rank
};

/// The first step touches memory for the first time, and on a GPU chooses algorithms: it is told apart.
Run run_steps(Trainer& trainer, const Batches& batches, int64_t steps) {
  Run run{.start_s = process_age_s()};
  MemoryWatch memory(trainer.model().context().device);
  run.first = trainer.step(batches, 1, steps + 1);
  check_finite(run.first);
  memory.look();
  std::vector<double> seconds;
  for (int64_t step = 2; step <= steps + 1; ++step) {
    run.last = trainer.step(batches, step, steps + 1);
    check_finite(run.last);
    seconds.push_back(run.last.step_s);
    memory.look();
  }
  run.times = times_of(seconds);
  run.peak_bytes = memory.peak_bytes();
  return run;
}

}  // namespace

Report run_step(Runtime& runtime, const LoadedConfig& from) {
  const LoadedConfig loaded = with_flags(runtime, from);
  const Config& config = loaded.config;
  const int64_t steps = runtime.arguments.integer("steps", 5, 1, 100000);
  BaseModel base;
  std::optional<Plan> plan;
  const Compute compute = compute_of(config, found_device(runtime.context.device));
  const Hardware room = room_of_ranks(runtime.world, runtime.context.device, config, runtime.session.hosts());
  agreed(runtime.world, [&] {
    check_config(loaded, {.ranks = runtime.world.size(), .hosts = runtime.session.hosts()});
    base = read_base_model(config);
    plan = chosen_plan(config, base.spec, runtime.world.size(), compute, room).plan;
    plan->parallel.saves_behind = false;  // nothing is saved
  });
  check_memory(runtime.world, *plan, runtime.device, runtime.session.hosts());
  const int64_t ledger_bytes = ledger_of(*plan, runtime.world.rank()).total_bytes();
  const MemoryDocuments rows(
      made_up_rows(config.batch.global * (steps + 1), config.data.sequence_length, base.spec.V));
  const Batches batches(rows, {.sequence_length = config.data.sequence_length, .packing = RowPacking::off},
                        {.micro = config.batch.micro, .global = config.batch.global, .data = plan->mesh.data},
                        {.shuffle = Shuffle::off});
  Run run;
  {
    Trainer trainer(base.spec, config.optimizer, *plan, runtime.world, runtime.device);
    load_or_make_weights(runtime, config, base, trainer);
    run = run_steps(trainer, batches, steps);
  }
  // Behind the trainer, whose memory a GPU may need for this.
  runtime.world.barrier();
  const DType operands = product_types(compute.precision).operands;
  const double product = sum_over_ranks(runtime.world, square_flops(runtime.context, operands));
  const double peak = max_over_ranks(runtime.world, run.peak_bytes);
  const double all_bytes = sum_over_ranks(runtime.world, run.peak_bytes);
  const double ledger = max_over_ranks(runtime.world, static_cast<double>(ledger_bytes));

  const bool is_cpu = runtime.gpu == nullptr;
  const double tokens = static_cast<double>(run.first.tokens);
  const double flops = tokens * training_flops_per_token(base.spec, config.data.sequence_length);
  const Times times = run.times;
  Report report;
  report.values = {{"ranks", runtime.world.size()},
                   {"threads", runtime.context.threads},
                   {"device", device_name(runtime)},
                   {"precision", precision_name(compute.precision)},
                   {"rows", config.batch.global},
                   {"sequence_length", config.data.sequence_length},
                   {"median_s", times.median_s},
                   {"best_s", times.best_s},
                   {"first_s", run.first.step_s},
                   {"tokens_per_s", tokens / times.median_s},
                   {"flops", flops},
                   {is_cpu ? "sgemm_flops" : "peak_flops", product},
                   {is_cpu ? "share_of_sgemm" : "share_of_peak", flops / times.best_s / product},
                   {"peak_memory_bytes", peak},
                   {"memory_bytes_of_all_ranks", all_bytes},
                   {"ledger_bytes", ledger},
                   {"start_s", run.start_s},
                   {"first_loss", run.first.loss},
                   {"last_loss", run.last.loss}};
  report.text = fmt::format(
      "{} rows of {} tokens, {} steps on {} ranks of {} threads, {}, {}, {}\n"
      "step            median {:.4f} s, best {:.4f} s, first {:.3f} s\n"
      "tokens/s        median {:.0f}, best {:.0f}\n"
      "arithmetic      {:.4g} TFLOP a step; at best {:.4g} TFLOP/s, {:.1f} % of the measured square "
      "product's "
      "{:.4g}\n"
      "memory          {:.2f} GB at most on a rank, {:.2f} GB on all; the plan's ledger says {:.2f} of a "
      "rank\n"
      "start           {:.2f} s from the process's start to the first step's\n"
      "loss            {:.6f} in the first step, {:.6f} in the last\n",
      config.batch.global, config.data.sequence_length, steps, runtime.world.size(), runtime.context.threads,
      device_name(runtime), precision_name(compute.precision), to_string(plan->mesh), times.median_s,
      times.best_s, run.first.step_s, tokens / times.median_s, tokens / times.best_s, 1e-12 * flops,
      1e-12 * flops / times.best_s, 100 * flops / times.best_s / product, 1e-12 * product, 1e-9 * peak,
      1e-9 * all_bytes, 1e-9 * ledger, run.start_s, run.first.loss, run.last.loss);
  return report;
}

}  // namespace ptrain::bench
