// Saving and going on: bitwise on the same grid, on the golden curve on any other, and the same logical state
// everywhere.
#include <gtest/gtest.h>

#include <map>

#include "src/io/checkpoint_saver.h"
#include "src/io/find.h"
#include "src/io/json.h"
#include "src/train/model_files.h"
#include "src/train/resume.h"
#include "src/train/state_files.h"
#include "tests/support/equivalence.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

constexpr int64_t half = 5, all = 10;

Batches batches_of(const CurveCase& golden, const Grid& grid) {
  return Batches(*golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
                 {.micro = grid.micro, .global = golden.global, .data = grid.data},
                 {.shuffle = Shuffle::off});
}

/// Steps begin + 1 … end of the golden curve with a trainer that stands at `begin`.
std::vector<StepResult> go(const CurveCase& golden, const Grid& grid, Trainer& trainer, int64_t begin,
                           int64_t end) {
  const Batches batches = batches_of(golden, grid);
  std::vector<StepResult> results;
  for (int64_t step = begin + 1; step <= end; ++step)
    results.push_back(trainer.step(batches, step, golden.steps));
  return results;
}

/// Trains to the half on `grid` and saves there, files in `dtype`.
void save_half(const CurveCase& golden, const Grid& grid, const std::filesystem::path& root, DType dtype,
               const Compute& compute = {}) {
  run_ranks(grid.world(), [&](Communicator& world) {
    Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid, compute), world, Context{});
    load_golden_weights(golden.weights, trainer);
    go(golden, grid, trainer, 0, half);
    HostState state(trainer);
    state.get();
    save_checkpoint(world,
                    {.root = root,
                     .small_files = {golden.directory},
                     .step = half,
                     .tensors = model_tensors(trainer.plan(), dtype)},
                    slices_to_save(trainer, state));
  });
}

/// Loads the checkpoint on `grid` and trains on; the first rank's results.
std::vector<StepResult> resume_half(const CurveCase& golden, const Grid& grid,
                                    const std::filesystem::path& root, const Compute& compute = {}) {
  std::vector<StepResult> results;
  run_ranks(grid.world(), [&](Communicator& world) {
    Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid, compute), world, Context{});
    HostState state(trainer);
    const auto found = resume_newest(world, root, slices_to_load(trainer, state));
    ASSERT_TRUE(found.has_value());
    state.put();
    trainer.set_updates(found->step);
    const auto mine = go(golden, grid, trainer, half, all);
    if (world.rank() == 0) results = mine;
  });
  return results;
}

const Grid saved_grid{.tensor = 3,
                      .pipeline = 2,
                      .data = 1,
                      .micro = 1,
                      .is_sequence_parallel = true};  // shared KV heads, tied ends

// Two stages a rank; the first has its shards of parameters alone, and makes activations again.
const Grid interleaved_grid{.pipeline = 2,
                            .data = 2,
                            .zero = 3,
                            .schedule = ScheduleName::interleaved,
                            .chunks = 2,
                            .recompute = Recompute::full};
const Grid v_grid{.tensor = 2, .pipeline = 2, .micro = 2, .schedule = ScheduleName::zero_bubble, .chunks = 2};

TEST(Resume, OnTheSameGridGivesTheBitsOfTheUnbrokenRun) {
  const CurveCase golden("llama-gqa-tied");
  // f32 files hold the weights themselves; bf16 files need the master beside them.
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Grid& grid :
         {saved_grid, Grid{.tensor = 1, .pipeline = 2, .data = 2}, Grid{.data = 3, .zero = 0},
          Grid{.data = 2, .zero = 2}, Grid{.tensor = 2, .data = 2, .zero = 3}, interleaved_grid, v_grid}) {
      const TemporaryDirectory root;
      save_half(golden, grid, root.path(), dtype);
      const auto resumed = resume_half(golden, grid, root.path());
      std::vector<StepResult> unbroken;
      run_ranks(grid.world(), [&](Communicator& world) {
        const auto mine = train_on(golden, grid, world, all);
        if (world.rank() == 0) unbroken = mine;
      });
      ASSERT_EQ(resumed.size(), static_cast<size_t>(all - half));
      for (size_t i = 0; i < resumed.size(); ++i) {
        EXPECT_EQ(resumed[i].loss, unbroken[i + half].loss) << to_string(grid) << " " << name_of(dtype);
        EXPECT_EQ(resumed[i].grad_norm, unbroken[i + half].grad_norm) << to_string(grid);
      }
    }
  }
}

TEST(Resume, InSixteenBitsIsBitwiseTheUnbrokenRun) {
  const CurveCase golden("llama-gqa-tied");
  for (Config::Precision precision : {Config::Precision::bf16, Config::Precision::fp16}) {
    const Compute compute{.precision = precision};
    for (const Grid& grid : {Grid{.micro = 2}, Grid{.data = 2}, Grid{.tensor = 2}, Grid{.data = 3, .zero = 3},
                             interleaved_grid}) {
      std::vector<StepResult> unbroken;
      run_ranks(grid.world(), [&](Communicator& world) {
        const auto mine = train_on(golden, grid, world, all, {}, precision);
        if (world.rank() == 0) unbroken = mine;
      });
      for (DType dtype : {DType::f32, DType::bf16}) {
        const TemporaryDirectory root;
        save_half(golden, grid, root.path(), dtype, compute);
        const auto resumed = resume_half(golden, grid, root.path(), compute);
        ASSERT_EQ(resumed.size(), static_cast<size_t>(all - half));
        for (size_t i = 0; i < resumed.size(); ++i) {
          EXPECT_EQ(resumed[i].loss, unbroken[i + half].loss) << to_string(grid) << " " << name_of(dtype);
          EXPECT_EQ(resumed[i].grad_norm, unbroken[i + half].grad_norm) << to_string(grid);
        }
      }
    }
  }
}

TEST(Resume, OnAnyOtherGridStaysOnTheReferencesCurve) {
  const CurveCase golden("llama-gqa-tied");
  for (const Grid& saved : {saved_grid, Grid{.tensor = 2, .data = 3, .zero = 2}, interleaved_grid, v_grid}) {
    const TemporaryDirectory root;
    save_half(golden, saved, root.path(), DType::f32);
    for (int world_size : {1, 2, 4, 6}) {
      for (const Grid& grid : sample_of(golden, world_size, Cover::values)) {
        const auto resumed = resume_half(golden, grid, root.path());
        ASSERT_EQ(resumed.size(), static_cast<size_t>(all - half));
        EXPECT_EQ(deviation_of(golden, resumed, half + 1).fault, "")
            << "from " << to_string(saved) << " to " << to_string(grid);
      }
    }
  }
}

/// All elements of every tensor of one kind, whoever wrote them.
std::map<std::string, std::vector<float>> whole_of_checkpoint(const FoundCheckpoint& checkpoint,
                                                              Tensor StateSlice::*kind) {
  std::map<std::string, std::vector<float>> values;
  run_ranks(1, [&](Communicator& self) {
    std::vector<StateSlice> wanted;
    for (const StoredTensor& tensor : checkpoint.manifest.of(Manifest::Kind::weight)) {
      StateSlice& slice =
          wanted.emplace_back(StateSlice{tensor.name, tensor.shape, whole_of(tensor.shape), {}, {}, {}});
      std::vector<float>& to = values[tensor.name];
      to.resize(static_cast<size_t>(tensor.shape.numel()));
      slice.*kind = Tensor(to.data(), {tensor.shape.numel()}, DType::f32);
    }
    load_checkpoint(self, checkpoint, wanted);
  });
  return values;
}

TEST(Resume, WeightsAndMomentsAreBitwiseTheSameOnAnyOtherGrid) {
  const CurveCase golden("llama-gqa-tied");
  const Grid grids[] = {saved_grid,
                        interleaved_grid,
                        v_grid,
                        Grid{.tensor = 2, .data = 3, .zero = 2},
                        Grid{.data = 2, .zero = 0},
                        Grid{.tensor = 2, .data = 2, .zero = 3}};
  for (size_t i = 0; i < std::size(grids); ++i) {
    const Grid &from = grids[i], &to = grids[(i + 1) % std::size(grids)];
    const TemporaryDirectory root, again;
    save_half(golden, from, root.path(), DType::bf16);
    // Loaded by the other grid and saved by it: nothing is trained in between.
    run_ranks(to.world(), [&](Communicator& world) {
      Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, to), world, Context{});
      HostState state(trainer);
      ASSERT_TRUE(resume_newest(world, root.path(), slices_to_load(trainer, state)).has_value());
      state.put();
      state.get();
      save_checkpoint(world,
                      {.root = again.path(),
                       .small_files = {golden.directory},
                       .step = half,
                       .tensors = model_tensors(trainer.plan(), DType::bf16)},
                      slices_to_save(trainer, state));
    });
    const auto a = find_newest(root.path()), b = find_newest(again.path());
    ASSERT_TRUE(a && b);
    for (Tensor StateSlice::*kind :
         {&StateSlice::weight, &StateSlice::first_moment, &StateSlice::second_moment}) {
      EXPECT_EQ(whole_of_checkpoint(*a, kind), whole_of_checkpoint(*b, kind))
          << to_string(from) << " to " << to_string(to);
    }
  }
}

TEST(Resume, TheCheckpointIsAnHfDirectoryThatLoadsElsewhere) {
  const CurveCase golden("llama-gqa-tied");
  const TemporaryDirectory root;
  save_half(golden, saved_grid, root.path(), DType::f32);
  const std::filesystem::path checkpoint = root.path() / checkpoint_name(half);
  link_hf_files(checkpoint, root.path() / "model");
  EXPECT_FALSE(std::filesystem::exists(root.path() / "model" / "MANIFEST.json"));
  EXPECT_FALSE(std::filesystem::exists(root.path() / "model" / "state"));
  const HfDir directory = HfDir::open(root.path() / "model");
  EXPECT_EQ(directory.tensors().size(), golden.weights.entries().size());
  EXPECT_EQ(read_model_spec(root.path() / "model").V, golden.spec.V);
  // Trained on from the weights alone (no moments) the first loss is still the curve's.
  run_ranks(2, [&](Communicator& world) {
    const Grid grid{.data = 2};
    Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid), world, Context{});
    load_weights(world, directory, {.spec = trainer.model().spec()}, trainer);
    const double loss = go(golden, grid, trainer, half, half + 1).at(0).loss;
    const double want = golden.curve["curve"][half]["loss"].get<double>();
    EXPECT_NEAR(loss, want, tolerance::golden_loss * want);
  });
}

TEST(Resume, AFixedValueThatDiffersIsRefusedWithBothValues) {
  const Json saved = {{"fixed", {{"train.seed", "1"}, {"batch.global", "64"}}},
                      {"free", {{"train.steps", "10"}}}};
  Json now = saved;
  EXPECT_NO_THROW(check_resume(saved, now, 5));
  now["free"]["train.steps"] = "20";
  EXPECT_NO_THROW(check_resume(saved, now, 5));
  now["fixed"]["batch.global"] = "32";
  try {
    check_resume(saved, now, 5);
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("64"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("32"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ptrain
