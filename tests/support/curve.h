// Trains a golden case on some grid with ranks that a test gives, and returns what every step said.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/data/batches.h"
#include "src/io/file.h"
#include "src/io/json.h"
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
  int chunks = 1;
  Recompute recompute = Recompute::none;
  bool is_grid_invariant = false;
  Offload offload = Offload::none;
  int tensor_strips = 1;

  int world() const { return tensor * pipeline * data; }
};

inline std::string to_string(const Grid& grid) {
  return fmt::format(
      "tensor {} pipeline {} data {} micro {}{} zero {} {}{}{}{}{}{}", grid.tensor, grid.pipeline, grid.data,
      grid.micro, grid.is_sequence_parallel ? " sequence parallel" : "", grid.zero, name_of(grid.schedule),
      grid.chunks == 1 ? "" : fmt::format(" {} chunks", grid.chunks),
      grid.recompute == Recompute::none ? "" : fmt::format(" recompute {}", name_of(grid.recompute)),
      grid.is_grid_invariant ? " grid-invariant" : "",
      grid.offload == Offload::none ? "" : " optimizer offloaded",
      grid.tensor_strips == 1 ? "" : fmt::format(" in {} strips", grid.tensor_strips));
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
  parallel.virtual_stages = grid.chunks;
  parallel.zero = grid.zero;
  parallel.recompute = grid.recompute;
  parallel.is_grid_invariant = grid.is_grid_invariant;
  parallel.offload = grid.offload;
  parallel.tensor_strips = grid.tensor_strips;
  parallel.micro = grid.micro;
  parallel.global = golden.global;
  parallel.sequence_length = golden.sequence_length;
  parallel.bucket_elements = 20'000;  // several buckets also for a small model
  parallel.types = state_types(compute.precision);
  const auto sequence_parallel = grid.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
  try {
    Workload workload =
        workload_of(golden.spec, sequence_parallel, stages_of(parallel), parallel.types.param);
    book_scratch(workload, scratch_sizes(golden.spec, parallel, compute), compute.device);
    return make_plan(workload, parallel, grid.world());
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
    return std::nullopt;
  }
}

/// The whole product that fits the case on `world` ranks: schedules and their chunks, ZeRO 0 to 3, recompute,
/// grids, micro-batches of 1 and 2 rows, sequence parallelism off and on, layers whole and in two strips.
inline std::vector<Grid> all_grids(const CurveCase& golden, int world) {
  struct Order {
    ScheduleName schedule;
    int chunks;
  };
  using enum ScheduleName;
  constexpr Order orders[] = {{one_f_one_b, 1}, {gpipe, 1},       {interleaved, 2},
                              {interleaved, 3}, {zero_bubble, 1}, {zero_bubble, 2}};
  std::vector<Grid> grids;
  for (int tensor = 1; tensor <= world; ++tensor) {
    for (int pipeline = 1; pipeline * tensor <= world; ++pipeline) {
      if (world % (tensor * pipeline) != 0) continue;
      Grid grid{.tensor = tensor, .pipeline = pipeline, .data = world / (tensor * pipeline)};
      for (const Order& order : orders) {
        grid.schedule = order.schedule;
        grid.chunks = order.chunks;
        for (int64_t micro : {1, 2}) {
          grid.micro = micro;
          for (bool is_sequence_parallel : {false, true}) {
            grid.is_sequence_parallel = is_sequence_parallel;
            if (is_sequence_parallel && tensor == 1) continue;
            for (int strips : {1, 2}) {
              grid.tensor_strips = strips;
              if (strips > 1 && tensor == 1) continue;
              for (int zero : {0, 1, 2, 3}) {
                grid.zero = zero;
                if (zero != 1 && grid.data == 1) continue;
                for (Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
                  grid.recompute = recompute;
                  if (plan_on(golden, grid)) grids.push_back(grid);
                }
              }
            }
          }
        }
      }
    }
  }
  return grids;
}

/// A part of the product in which every value of every choice comes: each `stride`-th, a stride that has no
/// divisor in common with the numbers of choices.
inline std::vector<Grid> sample_of(const std::vector<Grid>& all, size_t stride, size_t first = 0) {
  std::vector<Grid> sample;
  for (size_t i = first; i < all.size(); i += stride) sample.push_back(all[i]);
  return sample;
}

/// Fills a trainer of any device and precision from the case's weights.
inline void load_golden_weights(const SafetensorsFile& file, Trainer& trainer) {
  HostState state(trainer, HostState::Parts::weights);
  for (const PlacedWeight& weight : trainer.model().placed()) {
    const OwnedTensor box(weight.box.extent, DType::f32);
    file.read_box(weight.spec.piece.name, weight.box, box.view);
    state.set(weight, box.view);
  }
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
  const std::optional<Plan> plan = plan_on(golden, grid, compute);
  check(plan.has_value(), "{} does not fit", to_string(grid));
  Trainer trainer(golden.spec, golden.optimizer, *plan, world, device);
  load_golden_weights(golden.weights, trainer);
  std::vector<StepResult> results;
  for (int64_t step = 1; step <= (steps > 0 ? steps : golden.steps); ++step) {
    results.push_back(trainer.step(batches, step, golden.steps));
  }
  return results;
}

}  // namespace ptrain
