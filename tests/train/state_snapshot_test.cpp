// The copy that is saved while training goes on: the state that it was taken of, whatever comes after, in no
// more memory than one copy of the rank's own.
#include "src/train/state_snapshot.h"

#include <gtest/gtest.h>

#include "src/train/host_state.h"
#include "src/train/model_files.h"
#include "src/train/state_files.h"
#include "tests/support/equivalence.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// Name, part and the bits of all that is saved.
using Saved = std::vector<std::pair<std::string, std::vector<float>>>;

Saved saved_of(const std::vector<StateSlice>& slices) {
  Saved saved;
  for (const StateSlice& slice : slices) {
    for (const Tensor& tensor : {slice.weight, slice.first_moment, slice.second_moment}) {
      const auto values = tensor.span<const float>();
      saved.emplace_back(slice.name + " " + to_string(slice.slice),
                         std::vector(values.begin(), values.end()));
    }
  }
  return saved;
}

Saved saved_of(Trainer& trainer) {
  HostState state(trainer);
  state.get();
  return saved_of(slices_to_save(trainer, state));
}

TEST(StateSnapshot, HoldsTheStateAsItWasAndNothingElse) {
  const CurveCase golden("llama-gqa-tied");
  for (const Config::Precision precision : {Config::Precision::fp32, Config::Precision::bf16}) {
    for (const Grid& grid : {Grid{.tensor = 2}, Grid{.data = 3, .zero = 0}, Grid{.pipeline = 2, .data = 2},
                             Grid{.tensor = 3, .data = 2, .zero = 2}, Grid{.data = 3, .zero = 3}}) {
      run_ranks(grid.world(), [&](Communicator& world) {
        Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid, {.precision = precision}),
                        world, Context{});
        load_golden_weights(golden.weights, trainer);
        const Batches batches(
            *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
            {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
        StateSnapshot snapshot(trainer);
        EXPECT_FALSE(snapshot.is_taken());
        for (const int64_t step : {1, 2}) {
          trainer.step(batches, step, golden.steps);
          snapshot.take(step);
          EXPECT_EQ(snapshot.step(), step);
          EXPECT_EQ(saved_of(snapshot.slices()), saved_of(trainer)) << to_string(grid);
        }
        const StepResult third = trainer.step(batches, 3, golden.steps);
        // A step later it still holds the one before.
        EXPECT_NE(saved_of(snapshot.slices()), saved_of(trainer)) << to_string(grid);
        EXPECT_EQ(snapshot.step(), 2);

        // Put back, the third step is what it was.
        const Saved after = saved_of(trainer);
        snapshot.put_back();
        EXPECT_EQ(saved_of(trainer), saved_of(snapshot.slices())) << to_string(grid);
        trainer.set_updates(2);
        EXPECT_EQ(trainer.step(batches, 3, golden.steps).loss, third.loss) << to_string(grid);
        EXPECT_EQ(saved_of(trainer), after) << to_string(grid);

        const int64_t own = trainer.optimizer().state_elements();
        EXPECT_EQ(StateSnapshot::bytes_of(trainer), 3 * 4 * own);
        Plan plan = trainer.plan();
        plan.parallel.saves_behind = true;
        EXPECT_EQ(StateSnapshot::bytes_of(trainer), snapshot_bytes(plan, world.rank())) << to_string(grid);
        int64_t all = own;
        world.all_reduce(Tensor(&all, {1}, DType::i64));
        // With ZeRO a data rank's part of it: over all of them each element once, but for replicas and
        // padding.
        if (grid.zero > 0) {
          int64_t elements = 0;
          for (const StateSlice& slice : snapshot.slices()) elements += slice.slice.numel();
          world.all_reduce(Tensor(&elements, {1}, DType::i64));
          EXPECT_LT(static_cast<double>(all), 1.25 * static_cast<double>(elements)) << to_string(grid);
        }
      });
    }
  }
}

}  // namespace
}  // namespace ptrain
