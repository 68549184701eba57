// The loss curve of a golden case on GPUs: the whole trainer over device memory, streams and NCCL. Emulated
// devices and a fake NCCL between threads, or GPUs and the library, as the test was linked.
#include <gtest/gtest.h>

#include "src/io/json.h"
#include "src/model/host_flat.h"
#include "tests/support/curve.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/run_devices.h"
#include "tests/support/tolerances.h"
#include "tests/train/compared_replicas.h"

namespace ptrain {
namespace {

constexpr int64_t steps = 2;

struct DeviceCase {
  Grid grid;
  Through through = Through::nccl;
  Config::Precision precision = Config::Precision::fp32;
};

std::string name_of(const DeviceCase& c) {
  return fmt::format("{} {} {}", to_string(c.grid), name_of(c.through),
                     c.precision == Config::Precision::fp32   ? "fp32"
                     : c.precision == Config::Precision::bf16 ? "bf16"
                                                              : "fp16");
}

/// Rank 0's results on devices.
std::vector<StepResult> train_on_devices(const CurveCase& golden, const DeviceCase& c) {
  std::vector<StepResult> results;
  run_on_devices(c.grid.world(), c.through, [&](Communicator& world, const RunDevice& device) {
    const auto mine = train_on(golden, c.grid, world, steps, device, c.precision);
    if (world.rank() == 0) results = mine;
  });
  return results;
}

const Grid alone{.micro = 2};

TEST(DeviceCurve, IsTheReferencesInFp32OnEveryKindOfGrid) {
  using enum ScheduleName;
  const CurveCase golden("llama-gqa-tied");
  int cases = 0;
  for (const DeviceCase& c :
       {DeviceCase{alone}, DeviceCase{{.tensor = 2, .micro = 2}},
        DeviceCase{{.tensor = 2, .micro = 2, .is_sequence_parallel = true}},
        DeviceCase{{.pipeline = 2, .micro = 2}}, DeviceCase{{.data = 2, .zero = 0}}, DeviceCase{{.data = 2}},
        DeviceCase{{.tensor = 2, .micro = 2}, Through::host}, DeviceCase{{.pipeline = 2, .data = 2}},
        DeviceCase{{.pipeline = 2, .micro = 2}, Through::host},
        // Units that come and go, several stages a rank, backward in halves, activations made again.
        DeviceCase{{.data = 2, .zero = 2}}, DeviceCase{{.data = 2, .zero = 3, .recompute = Recompute::full}},
        DeviceCase{{.data = 2, .zero = 3}, Through::host},
        DeviceCase{{.pipeline = 2, .micro = 2, .schedule = interleaved, .chunks = 2}},
        DeviceCase{{.pipeline = 2, .micro = 2, .schedule = zero_bubble}},
        DeviceCase{{.pipeline = 2, .micro = 2, .schedule = zero_bubble, .chunks = 2}},
        DeviceCase{{.pipeline = 2, .data = 2, .micro = 3, .zero = 3, .schedule = interleaved, .chunks = 2}},
        DeviceCase{
            {.tensor = 2, .micro = 2, .is_sequence_parallel = true, .recompute = Recompute::selective}},
        // Layers in strips of 19 and 20 rows, and odd ones.
        DeviceCase{{.tensor = 2, .micro = 2, .tensor_strips = 2}},
        DeviceCase{{.tensor = 2, .micro = 2, .is_sequence_parallel = true, .tensor_strips = 2}},
        DeviceCase{
            {.tensor = 2, .is_sequence_parallel = true, .recompute = Recompute::full, .tensor_strips = 3}},
        DeviceCase{{.tensor = 2, .micro = 2, .is_sequence_parallel = true, .tensor_strips = 2},
                   Through::host},
        DeviceCase{{.tensor = 2,
        .pipeline = 2,
        .micro = 2,
        .is_sequence_parallel = true,
        .schedule = zero_bubble,
        .tensor_strips = 2}}}) {
    ASSERT_TRUE(plan_on(golden, c.grid)) << name_of(c);
    if (!why_not(c.through, c.grid.world()).empty()) continue;
    ++cases;
    const auto results = train_on_devices(golden, c);
    ASSERT_EQ(results.size(), steps) << name_of(c);
    for (size_t i = 0; i < results.size(); ++i) {
      const Json& want = golden.curve["curve"][i];
      const double loss = want["loss"].get<double>(), norm = want["grad_norm"].get<double>();
      EXPECT_NEAR(results[i].loss, loss, tolerance::golden_loss * loss) << name_of(c) << " step " << i + 1;
      EXPECT_NEAR(results[i].grad_norm, norm, tolerance::golden_grad_norm * norm) << name_of(c);
    }
  }
  EXPECT_GE(cases, 1);
  RecordProperty("cases", cases);
}

TEST(DeviceCurve, InSixteenBitsIsTheCpusOfTheSamePrecision) {
  const CurveCase golden("llama-gqa-tied");
  for (Config::Precision precision : {Config::Precision::bf16, Config::Precision::fp16}) {
    std::vector<StepResult> cpu;
    run_ranks(1, [&](Communicator& world) { cpu = train_on(golden, alone, world, steps, {}, precision); });
    const auto device = train_on_devices(golden, {alone, Through::nccl, precision});
    for (size_t i = 0; i < cpu.size(); ++i) {
      const double want = golden.curve["curve"][i]["loss"].get<double>();
      EXPECT_NEAR(device[i].loss, cpu[i].loss, tolerance::half_loss * want);
      EXPECT_NEAR(cpu[i].loss, want, tolerance::half_loss * want);
      EXPECT_NEAR(device[i].grad_norm, cpu[i].grad_norm, tolerance::half_grad_norm * cpu[i].grad_norm);
    }
  }
}

TEST(DeviceReplicas, ABitThatFlipsInOneGpusMemoryIsFound) {
  const CurveCase golden("llama-gqa-tied");
  for (const DeviceCase& c : {DeviceCase{{.data = 2, .zero = 0}}, DeviceCase{{.tensor = 2, .micro = 2}},
                              DeviceCase{{.data = 2, .zero = 0}, Through::nccl, Config::Precision::bf16}}) {
    if (!why_not(c.through, c.grid.world()).empty()) continue;
    run_on_devices(c.grid.world(), c.through, [&](Communicator& world, const RunDevice& device) {
      const Batches batches(
          *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
          {.micro = c.grid.micro, .global = golden.global, .data = c.grid.data}, {.shuffle = Shuffle::off});
      const Compute compute{.device = DeviceKind::cuda, .precision = c.precision};
      Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, c.grid, compute), world, device);
      load_golden_weights(golden.weights, trainer);
      ReplicaCheck replicas(trainer, world);
      trainer.step(batches, 1, golden.steps);
      EXPECT_FALSE(compared(replicas, world)) << name_of(c);
      for (const PlacedWeight& weight : trainer.model().placed()) {
        if (world.rank() != 1 || weight.spec.role != Role::norm_2) continue;
        const Tensor one = trainer.model().owned_parameters().at({weight.offset + 3, 1});
        uint32_t bits = 0;
        const Tensor host(&bits, {1}, one.dtype);
        to_host(trainer.model().context(), one, host);
        bits ^= 1u << 6;
        from_host(trainer.model().context(), host, one);
        break;
      }
      const auto fault = compared(replicas, world);
      ASSERT_TRUE(fault) << name_of(c);
      EXPECT_EQ(fault->suspects, (std::vector<int>{0, 1}));
      EXPECT_EQ(fault->tensors, 1);
    });
  }
}

#ifdef PTRAIN_EMULATED  // a GPU does not count what was asked of it
TEST(DeviceCurve, AStepWaitsForItsGpuOnceAllocatesNothingAndRunsGraphs) {
  const CurveCase golden("llama-gqa-tied");
  for (const DeviceCase& c : {DeviceCase{alone}, DeviceCase{{.pipeline = 2, .data = 2}}}) {
    run_on_devices(c.grid.world(), c.through, [&](Communicator& world, const RunDevice& device) {
      const Batches batches(
          *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
          {.micro = c.grid.micro, .global = golden.global, .data = c.grid.data}, {.shuffle = Shuffle::off});
      const Compute compute{.device = DeviceKind::cuda};
      Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, c.grid, compute), world, device);
      load_golden_weights(golden.weights, trainer);
      trainer.step(batches, 1, golden.steps);
      trainer.step(batches, 2, golden.steps);
      const emulation::Counts before = emulation::counts();
      trainer.step(batches, 3, golden.steps);
      const emulation::Counts after = emulation::counts();
      EXPECT_EQ(after.synchronizations - before.synchronizations, 1) << name_of(c);
      EXPECT_EQ(after.allocations - before.allocations, 0) << name_of(c);
      EXPECT_GT(after.graph_launches - before.graph_launches, 0) << name_of(c);
    });
  }
}
#endif

}  // namespace
}  // namespace ptrain
