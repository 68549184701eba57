// Trains a golden case on some grid with ranks that a test gives, and returns what every step said.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "src/data/batches.h"
#include "src/model/init.h"
#include "src/model/workload.h"
#include "src/train/host_state.h"
#include "src/train/run_plan.h"
#include "src/train/trainer.h"
#include "tests/support/golden.h"

namespace ptrain {

struct Grid {
  int tensor = 1, pipeline = 1, data = 1;
  int64_t micro = 1;
  bool is_sequence_parallel = false;
  int zero = 1;
  ScheduleName schedule = ScheduleName::one_f_one_b;

  int world() const { return tensor * pipeline * data; }
};

inline std::string to_string(const Grid& grid) {
  return fmt::format("tensor {} pipeline {} data {} micro {}{} zero {} {}", grid.tensor, grid.pipeline,
                     grid.data, grid.micro, grid.is_sequence_parallel ? " sequence parallel" : "", grid.zero,
                     name_of(grid.schedule));
}

/// A golden case: model, rows in file order, and the curve's rules.
struct CurveCase {
  explicit CurveCase(const std::string& name)
      : directory(fixture("golden/" + name)),
        spec(read_model_spec(directory)),
        curve(read_json(directory / "curve.json")),
        weights(SafetensorsFile::open(directory / "model.safetensors")) {
    sequence_length = curve["sequence_length"].get<int64_t>();
    global = curve["global_batch"].get<int64_t>();
    steps = curve["steps"].get<int64_t>();
    std::vector<Document> documents;
    const std::string text = read_text(directory / "train.jsonl", 1 << 24);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = text.find('\n', begin);
      const Json row = parse_json(std::string_view(text).substr(begin, end - begin), name);
      documents.push_back({.ids = row["input_ids"].get<std::vector<int32_t>>(),
                           .labels = row["labels"].get<std::vector<int32_t>>()});
      begin = end + 1;
    }
    source.emplace(std::move(documents));
    const Json& rules = curve["optimizer"];
    optimizer.learning_rate = rules["lr"].get<double>();
    optimizer.warmup_steps = rules["warmup"].get<int64_t>();
  }

  std::filesystem::path directory;
  ModelSpec spec;
  Json curve;
  SafetensorsFile weights;
  int64_t sequence_length = 0, global = 0, steps = 0;
  std::optional<MemoryDocuments> source;
  Config::Optimizer optimizer;
};

/// The plan of a case on a grid; nothing where the grid does not fit the model.
inline std::optional<Plan> plan_on(const CurveCase& golden, const Grid& grid, const Compute& compute = {}) {
  ParallelConfig parallel;
  parallel.tensor = grid.tensor;
  parallel.pipeline = grid.pipeline;
  parallel.data = grid.data;
  parallel.schedule = grid.schedule;
  parallel.is_sequence_parallel = grid.is_sequence_parallel;
  parallel.zero = grid.zero;
  parallel.micro = grid.micro;
  parallel.global = golden.global;
  parallel.sequence_length = golden.sequence_length;
  parallel.bucket_elements = 20'000;  // several buckets also for a small model
  parallel.types = state_types(compute.precision);
  const auto sequence_parallel = grid.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
  try {
    Workload workload = workload_of(golden.spec, sequence_parallel, grid.pipeline, parallel.types.param);
    book_scratch(workload, scratch_sizes(golden.spec, parallel, compute), compute.device);
    return make_plan(workload, parallel, grid.world());
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
    return std::nullopt;
  }
}

/// Every grid of `world` ranks that fits the case, with micro-batches of 1 and 2 rows, sequence parallelism
/// off and on, ZeRO 0 and 1.
inline std::vector<Grid> all_grids(const CurveCase& golden, int world) {
  std::vector<Grid> grids;
  for (int tensor = 1; tensor <= world; ++tensor) {
    for (int pipeline = 1; pipeline * tensor <= world; ++pipeline) {
      if (world % (tensor * pipeline) != 0) continue;
      for (int64_t micro : {1, 2}) {
        for (bool is_sequence_parallel : {false, true}) {
          for (int zero : {0, 1}) {
            const Grid grid{tensor, pipeline, world / (tensor * pipeline), micro, is_sequence_parallel, zero};
            if (is_sequence_parallel && tensor == 1) continue;
            if (zero == 0 && grid.data == 1) continue;
            if (plan_on(golden, grid)) grids.push_back(grid);
          }
        }
      }
    }
  }
  return grids;
}

/// Fills a trainer of any device and precision from the case's weights.
inline void load_golden_weights(const SafetensorsFile& file, Trainer& trainer) {
  HostState state(trainer, HostState::Parts::weights);
  load_golden_weights(file, trainer.stage().placed(), state.weights());
  state.put();
}

/// Trains `steps` steps (0: the curve's) from the case's weights. Runs on every rank of `world`.
inline std::vector<StepResult> train_on(const CurveCase& golden, const Grid& grid, Communicator& world,
                                        int64_t steps = 0, const RunDevice& device = {},
                                        Config::Precision precision = Config::Precision::fp32) {
  const Batches batches(
      *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
      {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
  const Compute compute{.device = device.context.device.kind, .precision = precision};
  Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid, compute), world, device);
  load_golden_weights(golden.weights, trainer);
  std::vector<StepResult> results;
  for (int64_t step = 1; step <= (steps > 0 ? steps : golden.steps); ++step) {
    results.push_back(trainer.step(batches, step, golden.steps));
  }
  return results;
}

}  // namespace ptrain
