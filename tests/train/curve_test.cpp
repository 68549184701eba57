// The loss curves of the golden cases on every grid. By threads, or on the ranks of mpirun.
#include <gtest/gtest.h>

#include "tests/support/equivalence.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// By threads every pair of values of two choices; by MPI, where ranks are processes, every value.
Cover cover_here() {
  return mpi_ranks.world == nullptr ? Cover::pairs : Cover::values;
}

TEST(Curve, IsTheReferencesForEveryPairOfChoices) {
  const std::vector<CurveCase> curves = golden_curves();
  for (int world_size : world_sizes()) {
    for (const auto& [model, grid] : sample_of(all_cases(curves, world_size), cover_here())) {
      const CurveCase& golden = curves[static_cast<size_t>(model)];
      run_ranks(world_size, [&](Communicator& world) {
        EXPECT_EQ(deviation_of(golden, train_on(golden, grid, world)).fault, "")
            << golden.directory.filename() << " " << to_string(grid);
      });
    }
  }
}

TEST(Curve, TheSampleHoldsEveryPairOfTheWholeProduct) {
  const std::vector<CurveCase> curves = golden_curves();
  for (int world_size : {1, 2, 3, 4, 6, 8}) {
    const std::vector<ProofCase> all = all_cases(curves, world_size);
    for (Cover cover : {Cover::values, Cover::pairs}) {
      const std::vector<ProofCase> sample = sample_of(all, cover);
      EXPECT_EQ(pairs_of(choices_of(sample), cover), pairs_of(choices_of(all), cover)) << world_size;
      EXPECT_LT(sample.size(), all.size() / 4 + 1) << world_size;
    }
    // No choice may drop out of the product unseen: every schedule, all of ZeRO where there is data to share.
    std::set<int> models, schedules, zeros, recomputes;
    for (const auto& [model, grid] : all) {
      models.insert(model);
      schedules.insert(8 * static_cast<int>(grid.schedule) + grid.chunks);
      zeros.insert(grid.zero);
      recomputes.insert(static_cast<int>(grid.recompute));
    }
    EXPECT_EQ(models.size(), 3u) << world_size;
    EXPECT_EQ(schedules.size(), 6u) << world_size;
    EXPECT_EQ(zeros.size(), world_size == 1 ? 1u : 4u) << world_size;
    EXPECT_EQ(recomputes.size(), 3u) << world_size;
  }
}

TEST(Curve, ARunThatIsOffIsFound) {
  const CurveCase golden("llama-bias");
  std::vector<StepResult> results;
  run_thread_ranks(1, [&](Communicator& world) { results = train_on(golden, {}, world, 3); });
  EXPECT_EQ(deviation_of(golden, results).fault, "");
  const auto fault_of = [&](auto change) {
    std::vector<StepResult> changed = results;
    change(changed[1]);
    return deviation_of(golden, changed).fault;
  };
  EXPECT_TRUE(fault_of([](StepResult& step) { step.loss *= 1 + 6e-6; }).starts_with("step 2: loss"));
  EXPECT_TRUE(fault_of([](StepResult& step) { step.grad_norm *= 1 - 8e-5; }).starts_with("step 2: norm"));
  EXPECT_TRUE(fault_of([](StepResult& step) { step.loss = std::nan(""); }).starts_with("step 2: loss"));
  EXPECT_TRUE(fault_of([](StepResult& step) { step.learning_rate *= 1.001; }).starts_with("step 2: lr"));
  EXPECT_TRUE(fault_of([](StepResult& step) { ++step.supervised_tokens; }).ends_with("supervised tokens"));
}

TEST(HalfCurve, StaysByTheReferenceOnEveryKindOfGrid) {
  const CurveCase golden("llama-gqa-tied");
  for (Config::Precision precision :
       {Config::Precision::bf16, Config::Precision::fp16, Config::Precision::fp8}) {
    for (const Grid& grid : {Grid{.micro = 2}, Grid{.tensor = 2, .micro = 2, .is_sequence_parallel = true},
                             Grid{.pipeline = 2, .data = 2}}) {
      run_ranks(grid.world(), [&](Communicator& world) {
        const auto results = train_on(golden, grid, world, 0, {}, precision);
        const double coarseness =
            precision == Config::Precision::fp8 ? tolerance::fp8_loss : tolerance::half_loss;
        for (size_t i = 0; i < results.size(); ++i) {
          const double want = golden.curve["curve"][i]["loss"].get<double>();
          EXPECT_NEAR(results[i].loss, want, coarseness * want) << to_string(grid) << " step " << i + 1;
          EXPECT_FALSE(results[i].is_skipped());
        }
      });
    }
  }
}

TEST(HalfCurve, AnOverflowIsSkippedByAllRanksAndHalvesTheScale) {
  const CurveCase golden("llama-gqa-tied");
  const Grid grid{.tensor = 2, .data = 2};
  run_ranks(grid.world(), [&](Communicator& world) {
    const Compute compute{.precision = Config::Precision::fp16};
    const Batches batches(
        *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
        {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
    Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid, compute), world, Context{});
    load_golden_weights(golden.weights, trainer);
    HostState before(trainer), after(trainer);
    before.get();
    trainer.loss_scale().restore(0x1p120, 0);  // no gradient can bear that
    const StepResult skipped = trainer.step(batches, 1, golden.steps);
    EXPECT_TRUE(skipped.is_skipped());
    EXPECT_EQ(trainer.updates(), 0);
    EXPECT_EQ(trainer.loss_scale().value(), 0x1p119);
    after.get();
    const Range all{0, trainer.model().layout().elements};
    const auto was = before.weights().at(all).span<float>(), is = after.weights().at(all).span<float>();
    EXPECT_TRUE(std::equal(was.begin(), was.end(), is.begin()));
    trainer.loss_scale().restore(1024, 0);
    EXPECT_FALSE(trainer.step(batches, 2, golden.steps).is_skipped());
    EXPECT_EQ(trainer.updates(), 1);
  });
}

enum class Norm { same, sum_cut_elsewhere };

/// The bits of every loss, and of every norm. Where shards end elsewhere, the norm's f64 addends are other
/// parts of the same sum: it may differ by a few roundings of f64, of which the update, in f32, sees nothing.
void expect_same_bits(const std::vector<StepResult>& a, const std::vector<StepResult>& b, Norm norm,
                      const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].loss, b[i].loss) << what << " step " << i + 1;
    const double slack = norm == Norm::same ? 0 : 4 * tolerance::unit<double> * a[i].grad_norm;
    EXPECT_NEAR(a[i].grad_norm, b[i].grad_norm, slack) << what << " step " << i + 1;
  }
}

/// The grids of the whole product with nothing special about them, on which others must give the same bits.
std::vector<Grid> plain_grids(const CurveCase& golden, int world_size) {
  std::vector<Grid> plain;
  for (const Grid& grid : all_grids(golden, world_size)) {
    if (grid.schedule == ScheduleName::one_f_one_b && grid.zero == 1 && grid.recompute == Recompute::none)
      plain.push_back(grid);
  }
  return plain;
}

/// Everything that changes the order of work, or what is held where, but no sum: one change at a time, and
/// all of them at once.
std::vector<Grid> same_bits_as(const CurveCase& golden, const Grid& grid) {
  std::vector<Grid> same = {grid};
  const auto with = [&](auto change) {
    Grid other = grid;
    change(other);
    same.push_back(other);
  };
  if (grid.pipeline > 1) {
    with([](Grid& other) { other.schedule = ScheduleName::gpipe; });
    with([](Grid& other) { other.schedule = ScheduleName::zero_bubble; });
  }
  with([](Grid& other) { other.recompute = Recompute::selective; });
  with([](Grid& other) { other.recompute = Recompute::full; });
  const bool has_one_micro = golden.global == grid.data * grid.micro;  // else ZeRO 2 sums in another order
  if (grid.data > 1) {
    with([](Grid& other) { other.zero = 0; });
    for (int zero : {2, 3}) {
      if (has_one_micro) with([&](Grid& other) { other.zero = zero; });
    }
  }
  with([&](Grid& other) {
    other.schedule = ScheduleName::gpipe;
    other.recompute = Recompute::full;
    if (grid.data > 1) other.zero = has_one_micro ? 3 : 0;
  });
  return same;
}

class Bits : public testing::TestWithParam<Config::Precision> {};

TEST_P(Bits, AreThoseOfOneForwardOneBackwardWithoutRecomputeAndOfZeroOne) {
  const CurveCase golden("llama-gqa-tied");
  const bool is_by_threads = mpi_ranks.world == nullptr;
  for (int world_size : world_sizes({4, 6})) {
    int compared = 0;
    const std::vector<Grid> plain = plain_grids(golden, world_size);
    for (size_t i = 0; i < plain.size(); i += is_by_threads ? 1 : 4) {
      run_ranks(world_size, [&](Communicator& world) {
        const auto once = train_on(golden, plain[i], world, 3, {}, GetParam());
        for (const Grid& other : same_bits_as(golden, plain[i])) {
          // The buckets of ZeRO 2 and 3 are single units.
          expect_same_bits(once, train_on(golden, other, world, 3, {}, GetParam()),
                           other.zero >= 2 ? Norm::sum_cut_elsewhere : Norm::same, to_string(other));
        }
      });
      ++compared;
    }
    EXPECT_GT(compared, 0) << world_size;
  }
}

TEST_P(Bits, AreTheSameTwiceWhereTheyNeedNotBeThoseOfZeroOne) {
  const CurveCase golden("llama-gqa-tied");
  using enum ScheduleName;
  for (Grid grid : {Grid{.data = 2}, Grid{.tensor = 2, .data = 2, .is_sequence_parallel = true},
                    Grid{.pipeline = 2, .data = 2, .schedule = interleaved, .chunks = 2}}) {
    for (int zero : {2, 3}) {
      grid.zero = zero;
      run_ranks(grid.world(), [&](Communicator& world) {
        const auto once = train_on(golden, grid, world, 3, {}, GetParam());
        const auto again = [&](const Grid& other) {
          expect_same_bits(once, train_on(golden, other, world, 3, {}, GetParam()), Norm::same,
                           to_string(other));
        };
        again(grid);
        // What the sums are made of is the same for both, and for what is made again.
        Grid other = grid;
        other.zero = 5 - zero;
        again(other);
        other.recompute = Recompute::full;
        again(other);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(In, Bits, testing::Values(Config::Precision::fp32, Config::Precision::bf16),
                         [](const auto& info) {
                           return info.param == Config::Precision::fp32 ? "fp32" : "bf16";
                         });

}  // namespace
}  // namespace ptrain
