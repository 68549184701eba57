// The optimizer's state in host memory: its movements against the CPU's own update, whole steps against the
// state on the device, checkpoints both ways. On emulated devices.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/rng.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/find.h"
#include "src/train/model_files.h"
#include "src/train/offload.h"
#include "src/train/resume.h"
#include "src/train/state_files.h"
#include "tests/support/curve.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/run_devices.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

using Precision = Config::Precision;
using Body = std::function<void(Communicator&, const RunDevice&)>;

constexpr Precision precisions[] = {Precision::fp32, Precision::bf16, Precision::fp16};
const CurveCase& golden() {
  static const CurveCase the_case("llama-gqa-tied");
  return the_case;
}

Grid with(Grid grid, Offload offload) {
  grid.offload = offload;
  return grid;
}

Compute gpu_in(Precision precision) {
  return {.device = DeviceKind::cuda, .precision = precision};
}

void on_devices(const Grid& grid, const Body& body) {
  run_on_devices(grid.world(), Through::nccl, body);
}

std::unique_ptr<Trainer> trainer_on(const Grid& grid, Precision precision, Communicator& world,
                                    const RunDevice& device) {
  return std::make_unique<Trainer>(golden().spec, golden().optimizer,
                                   *plan_on(golden(), grid, gpu_in(precision)), world, device);
}

Batches batches_of(const Grid& grid) {
  return Batches(*golden().source, {.sequence_length = golden().sequence_length, .packing = RowPacking::off},
                 {.micro = grid.micro, .global = golden().global, .data = grid.data},
                 {.shuffle = Shuffle::off});
}

std::vector<double> steps_of(Trainer& trainer, const Grid& grid, int64_t begin, int64_t end) {
  const Batches batches = batches_of(grid);
  std::vector<double> losses;
  for (int64_t step = begin + 1; step <= end; ++step) {
    const StepResult result = trainer.step(batches, step, golden().steps);
    losses.insert(losses.end(), {result.loss, result.grad_norm});
  }
  return losses;
}

/// What the rank updates: weights as their masters say, and both moments, in f32.
struct TrainerState {
  std::vector<float> weights, m, v;
  bool operator==(const TrainerState&) const = default;
};

TrainerState state_of(Trainer& trainer) {
  HostState host(trainer);
  host.get();
  TrainerState state;
  for (const UpdateSegment& segment : trainer.optimizer().segments()) {
    const Range range{segment.state, segment.elements.count};
    const auto append = [](std::vector<float>& to, Tensor from) {
      to.insert(to.end(), from.as<float>(), from.as<float>() + from.numel());
    };
    append(state.weights, host.weights().at(segment.elements));
    append(state.m, slice(host.m(), range));
    append(state.v, slice(host.v(), range));
  }
  return state;
}

// --- Its movements ----------------------------------------------------------------------------------------

void fill_with_noise(Tensor tensor, uint64_t seed) {
  const Rng rng(seed, 0);
  Context cpu;
  const OwnedTensor noise(tensor.shape, DType::f32);
  for (int64_t i = 0; i < tensor.numel(); ++i)
    noise.view.as<float>()[i] = static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
  to_host(cpu, noise.view, tensor);
}

bool same_bits(Tensor a, Tensor b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0;
}

/// A few updates by an offloaded optimizer beside those of one whose state, gradients and parameters lie in
/// plain memory. Streams in an order of their own for each seed.
void expect_the_updates_of_the_cpu(const Grid& grid, Precision precision, uint64_t seed) {
  const CurveCase& c = golden();
  const Plan plan = *plan_on(c, grid, gpu_in(precision));
  const StateTypes& types = plan.parallel.types;
  run_device_ranks({.mesh = {}, .seed = seed}, [&](DeviceRank& rank) {
    const Model model(c.spec, plan, 0, {}, Context{});  // for its table of weights
    const FlatLayout& layout = model.layout();
    ASSERT_GT(layout.buckets.size(), static_cast<size_t>(offload_places) + 1);
    Context context, cpu;
    context.device = rank.device;
    context.stream = &rank.compute;
    Optimizer plain(layout, model.placed(), plan.zero, grid.data - 1),
        mine(layout, model.placed(), plan.zero, grid.data - 1);
    const int64_t elements = plain.state_elements();
    const OwnedTensor m({elements}, types.moments), v({elements}, types.moments),
        master({elements}, types.master), weights({layout.elements}, types.param),
        gradients({layout.trainable_elements}, types.grad), read({layout.elements}, types.param);
    plain.bind(m.view, v.view, types.master == types.param ? Tensor{} : master.view);
    fill_with_noise(weights.view, seed);
    const OwnedTensor there({layout.elements}, types.param, rank.device),
        sums({layout.trainable_elements}, types.grad, rank.device);
    from_host(context, weights.view, there.view);
    OffloadedOptimizer offloaded(mine, layout, types, context);
    offloaded.read_parameters(FlatMemory(there.view));
    for (int64_t step = 1; step <= 4; ++step) {
      double scale = step == 3 ? std::numeric_limits<double>::quiet_NaN() : 0.5;  // the third one is skipped
      const Tensor factor(&scale, {1}, DType::f64);
      const AdamWStep rules{.learning_rate = 0.1, .weight_decay = 0.1, .update = step};
      fill_with_noise(gradients.view, 100 * seed + static_cast<uint64_t>(step));
      plain.update(cpu, rules, factor, FlatMemory(weights.view), FlatMemory(gradients.view));
      const Buffer staging = Buffer::staging(gradients.view.bytes(), rank.device);
      std::memcpy(staging.data(), gradients.view.data, static_cast<size_t>(gradients.view.bytes()));
      transfer(Tensor(staging.data(), gradients.view.shape, types.grad), sums.view, rank.compute);
      offloaded.start(FlatMemory(sums.view));
      std::vector<int> order;
      offloaded.update(rules, factor, FlatMemory(there.view), FlatMemory(sums.view),
                       [&](int bucket) { order.push_back(bucket); });
      EXPECT_EQ(order, step == 3 ? std::vector<int>{} : exchange_order(layout));
    }
    to_host(context, there.view, read.view);
    EXPECT_TRUE(same_bits(read.view, weights.view)) << seed;
    EXPECT_TRUE(same_bits(mine.m(), m.view) && same_bits(mine.v(), v.view)) << seed;
    if (mine.master()) {
      EXPECT_TRUE(same_bits(mine.master(), master.view)) << seed;
    }
  });
}

TEST(Offload, ItsUpdatesHaveTheBitsOfTheCpusInAnyOrderOfStreams) {
  for (Precision precision : precisions) {
    for (const Grid& grid : {Grid{}, Grid{.data = 2}, Grid{.data = 2, .zero = 0}}) {
      for (uint64_t seed : {1, 2, 3}) expect_the_updates_of_the_cpu(grid, precision, seed);
    }
  }
}

// --- Whole steps ------------------------------------------------------------------------------------------

/// The twins of adamw differ by a few roundings of the update's own size and of the weight's.
void expect_roundings(const TrainerState& with, const TrainerState& without, const std::string& name) {
  constexpr double rounding = std::numeric_limits<float>::epsilon();
  const double rate = golden().optimizer.learning_rate;
  ASSERT_EQ(with.weights.size(), without.weights.size()) << name;
  double worst = 0;
  for (size_t i = 0; i < with.weights.size(); ++i) {
    const auto off = [&](float a, float b, double size) {
      worst = std::max(worst, std::fabs(double{a} - b) / (rounding * std::max(std::fabs(double{b}), size)));
    };
    off(with.weights[i], without.weights[i], rate);
    off(with.m[i], without.m[i], 1e-30);
    off(with.v[i], without.v[i], 1e-30);
  }
  EXPECT_LE(worst, 4) << name;
}

struct Trained {
  std::vector<TrainerState> first;  // [rank], after one step
  std::vector<double> losses;       // and norms, of all steps
};

Trained train_and_look(const Grid& grid, Precision precision) {
  Trained trained;
  trained.first.resize(static_cast<size_t>(grid.world()));
  on_devices(grid, [&](Communicator& world, const RunDevice& device) {
    const auto trainer = trainer_on(grid, precision, world, device);
    load_golden_weights(golden().weights, *trainer);
    std::vector<double> losses = steps_of(*trainer, grid, 0, 1);
    trained.first[static_cast<size_t>(world.rank())] = state_of(*trainer);
    const std::vector<double> others = steps_of(*trainer, grid, 1, steps);
    losses.insert(losses.end(), others.begin(), others.end());
    if (world.rank() == 0) trained.losses = losses;
  });
  return trained;
}

TEST(Offload, AStepGivesTheStateAndTheCurveOfTheDevice) {
  struct Case {
    Precision precision;
    Grid grid;
  };
  for (const auto& [precision, grid] :
       {Case{Precision::fp32, {.micro = 2}}, Case{Precision::fp32, {.data = 2, .zero = 0}},
        Case{Precision::fp32, {.data = 2}}, Case{Precision::fp32, {.pipeline = 2}},
        Case{Precision::bf16, {.data = 2}}, Case{Precision::bf16, {.data = 2, .zero = 2}},
        Case{Precision::fp16, {.micro = 2}}, Case{Precision::fp16, {.data = 2, .zero = 3}}}) {
    const std::string name = fmt::format("{}, precision {}", to_string(grid), static_cast<int>(precision));
    const bool is_whole = precision == Precision::fp32;
    const Trained without = train_and_look(grid, precision);
    const Trained with_offload = train_and_look(with(grid, Offload::optimizer), precision);
    for (size_t rank = 0; rank < without.first.size(); ++rank)
      expect_roundings(with_offload.first[rank], without.first[rank], name);
    ASSERT_EQ(with_offload.losses.size(), 2 * steps);
    for (size_t i = 0; i < 2 * steps; i += 2) {
      const double loss = without.losses[i], norm = without.losses[i + 1];
      const double reference = golden().curve["curve"][i / 2]["loss"].get<double>();
      const double most = is_whole ? tolerance::golden_loss : tolerance::half_loss;
      EXPECT_NEAR(with_offload.losses[i], loss, most * loss) << name;
      EXPECT_NEAR(with_offload.losses[i], reference, most * reference) << name;
      EXPECT_NEAR(with_offload.losses[i + 1], norm,
                  (is_whole ? tolerance::golden_grad_norm : tolerance::half_grad_norm) * norm)
          << name;
    }
  }
}

TEST(Offload, TheDeviceHoldsLessByTheStateTheHostWhatThePlanSays) {
  for (Precision precision : precisions) {
    for (const Grid& grid :
         {Grid{}, Grid{.data = 2}, Grid{.data = 2, .zero = 0}, Grid{.data = 2, .zero = 3}}) {
      on_devices(grid, [&](Communicator& world, const RunDevice& device) {
        const auto without = trainer_on(grid, precision, world, device);
        const auto with_offload = trainer_on(with(grid, Offload::optimizer), precision, world, device);
        const StateTypes& types = without->plan().parallel.types;
        const int64_t elements = without->optimizer().state_elements();
        const int64_t master = types.master == types.param ? 0 : elements * size_bytes(types.master);
        EXPECT_EQ(without->arena_bytes() - with_offload->arena_bytes(),
                  2 * arena_bytes(elements * size_bytes(types.moments)) + arena_bytes(master));
        EXPECT_EQ(without->host_arena_bytes(), 0);
        const Ledger host = host_ledger_of(with_offload->plan(), world.rank());
        EXPECT_EQ(host.bytes(MemoryKind::moments), 2 * arena_bytes(elements * size_bytes(types.moments)));
        EXPECT_EQ(host.bytes(MemoryKind::master), arena_bytes(master));
        EXPECT_EQ(host.bytes(MemoryKind::weights), arena_bytes(elements * size_bytes(types.param)));
        EXPECT_EQ(with_offload->host_arena_bytes(), host.total_bytes());
        EXPECT_EQ(with_offload->optimizer().m().device.kind, DeviceKind::cpu);
        EXPECT_EQ(without->optimizer().m().device.kind, DeviceKind::cuda);
      });
    }
  }
}

TEST(Offload, AStepWaitsOnceForTheClipFactorAndOnceForEachBucketsGradients) {
  for (const Grid& plain : {Grid{.micro = 2}, Grid{.data = 2, .zero = 3}}) {
    const Grid grid = with(plain, Offload::optimizer);
    on_devices(grid, [&](Communicator& world, const RunDevice& device) {
      const auto trainer = trainer_on(grid, Precision::bf16, world, device);
      load_golden_weights(golden().weights, *trainer);
      steps_of(*trainer, grid, 0, 2);
      const emulation::Counts before = emulation::counts();
      steps_of(*trainer, grid, 2, 3);
      const emulation::Counts after = emulation::counts();
      const auto buckets = static_cast<int64_t>(trainer->model().layout().buckets.size());
      EXPECT_EQ(after.synchronizations - before.synchronizations, 1 + buckets) << to_string(grid);
      EXPECT_EQ(after.allocations - before.allocations, 0) << to_string(grid);
    });
  }
}

TEST(Offload, AStepWhoseGradientsOverflowChangesNothingAndTheNextOneGoesOn) {
  const Grid grid = with({.data = 2}, Offload::optimizer);
  on_devices(grid, [&](Communicator& world, const RunDevice& device) {
    const auto trainer = trainer_on(grid, Precision::fp16, world, device);
    load_golden_weights(golden().weights, *trainer);
    const Batches batches = batches_of(grid);
    trainer->step(batches, 1, golden().steps);
    const TrainerState before = state_of(*trainer);
    const double scale = trainer->loss_scale().value();
    trainer->loss_scale().restore(0x1p120, 0);
    EXPECT_TRUE(trainer->step(batches, 2, golden().steps).is_skipped());
    EXPECT_EQ(trainer->updates(), 1);
    EXPECT_TRUE(state_of(*trainer) == before);
    trainer->loss_scale().restore(scale, 0);
    EXPECT_FALSE(trainer->step(batches, 3, golden().steps).is_skipped());
    EXPECT_FALSE(state_of(*trainer) == before);
  });
}

// --- Checkpoints ------------------------------------------------------------------------------------------

void save(Communicator& world, Trainer& trainer, const std::filesystem::path& root, int64_t step) {
  HostState state(trainer);
  state.get();
  save_checkpoint(world,
                  {.root = root,
                   .small_files = {golden().directory},
                   .step = step,
                   .tensors = model_tensors(trainer.plan(), DType::bf16)},
                  slices_to_save(trainer, state));
}

void load(Communicator& world, Trainer& trainer, const std::filesystem::path& root) {
  HostState state(trainer);
  const auto found = resume_newest(world, root, slices_to_load(trainer, state));
  ASSERT_TRUE(found.has_value());
  state.put();
  trainer.set_updates(found->step);
}

TEST(Offload, ASavedRunGoesOnBitwise) {
  struct Case {
    Precision precision;
    int zero;
    int64_t half;
  };
  for (const auto& [precision, zero, half] :
       {Case{Precision::fp32, 1, 5}, Case{Precision::bf16, 3, 2}, Case{Precision::fp16, 2, 2}}) {
    const Grid grid = with({.data = 2, .zero = zero}, Offload::optimizer);
    const TemporaryDirectory root;
    std::vector<double> unbroken, resumed;
    on_devices(grid, [&](Communicator& world, const RunDevice& device) {
      const auto trainer = trainer_on(grid, precision, world, device);
      load_golden_weights(golden().weights, *trainer);
      steps_of(*trainer, grid, 0, half);
      save(world, *trainer, root.path(), half);
      const auto losses = steps_of(*trainer, grid, half, 2 * half);
      if (world.rank() == 0) unbroken = losses;
    });
    on_devices(grid, [&](Communicator& world, const RunDevice& device) {
      const auto trainer = trainer_on(grid, precision, world, device);
      load(world, *trainer, root.path());
      const auto losses = steps_of(*trainer, grid, half, 2 * half);
      if (world.rank() == 0) resumed = losses;
    });
    EXPECT_EQ(resumed, unbroken) << to_string(grid);
  }
}

TEST(Offload, ACheckpointIsTheSameStateWithAndWithoutIt) {
  for (Precision precision : precisions) {
    for (const Offload from : {Offload::none, Offload::optimizer}) {
      const Offload to = from == Offload::none ? Offload::optimizer : Offload::none;
      const Grid grid{.data = 2};
      const TemporaryDirectory root;
      std::vector<TrainerState> states(2);
      on_devices(with(grid, from), [&](Communicator& world, const RunDevice& device) {
        const auto trainer = trainer_on(with(grid, from), precision, world, device);
        load_golden_weights(golden().weights, *trainer);
        steps_of(*trainer, grid, 0, 1);
        states[static_cast<size_t>(world.rank())] = state_of(*trainer);
        save(world, *trainer, root.path(), 1);
      });
      on_devices(with(grid, to), [&](Communicator& world, const RunDevice& device) {
        const auto trainer = trainer_on(with(grid, to), precision, world, device);
        load(world, *trainer, root.path());
        EXPECT_TRUE(state_of(*trainer) == states[static_cast<size_t>(world.rank())]);
        const double loss = steps_of(*trainer, grid, 1, 2)[0];
        const double want = golden().curve["curve"][1]["loss"].get<double>();
        EXPECT_NEAR(loss, want,
                    (precision == Precision::fp32 ? tolerance::golden_loss : tolerance::half_loss) * want);
      });
    }
  }
}

}  // namespace
}  // namespace ptrain
