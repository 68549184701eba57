// Layers of a tensor group in strips of rows: the golden curves for any number of them, the bits that must
// not change, and what is under way beside which products.
#include <gtest/gtest.h>

#include <map>

#include "src/io/json.h"
#include "src/train/trace.h"
#include "tests/support/equivalence.h"
#include "tests/support/forwarding_comm.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

std::vector<StepResult> trained_by_strips(const CurveCase& golden, const Grid& grid, int64_t steps) {
  std::vector<StepResult> results;
  run_thread_ranks(grid.world(), [&](Communicator& world) {
    const auto mine = train_on(golden, grid, world, steps);
    if (world.rank() == 0) results = mine;
  });
  return results;
}

// Rows of 17 and 19 tokens: strips differ by a row, or are padded.
TEST(TensorStrips, OfAnyNumberGiveTheReferencesCurve) {
  for (const char* name : {"llama-bias", "llama-gqa-tied"}) {
    const CurveCase golden(name);
    for (int tensor : {2, 3, 4}) {
      for (int strips : {2, 3, 4}) {
        for (bool is_sequence_parallel : {false, true}) {
          const Grid grid{
              .tensor = tensor, .is_sequence_parallel = is_sequence_parallel, .tensor_strips = strips};
          if (!plan_on(golden, grid)) continue;
          EXPECT_EQ(deviation_of(golden, trained_by_strips(golden, grid, 6)).fault, "")
              << name << " " << to_string(grid);
        }
      }
    }
  }
}

void expect_same_bits(const std::vector<StepResult>& a, const std::vector<StepResult>& b,
                      const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].loss, b[i].loss) << what;
    EXPECT_EQ(a[i].grad_norm, b[i].grad_norm) << what;
  }
}

// Strips follow from rows and tensor ranks alone, so that sums which no grid changes stay what they are. With
// sequence parallelism replicas of norms are added up before data ranks are: there a data split shows.
TEST(TensorStrips, GiveTheSameBitsUnderEveryPipelineAndDataSplitWithGridInvariantSums) {
  const CurveCase golden("llama-gqa-tied");
  for (bool is_sequence_parallel : {false, true}) {
    const Grid alone{.tensor = 2,
                     .is_sequence_parallel = is_sequence_parallel,
                     .is_grid_invariant = true,
                     .tensor_strips = 2};
    const auto want = trained_by_strips(golden, alone, 3);
    for (Grid grid : {Grid{.pipeline = 2}, Grid{.data = 3}, Grid{.pipeline = 2, .recompute = Recompute::full},
                      Grid{.pipeline = 2, .schedule = ScheduleName::interleaved, .chunks = 2}}) {
      grid.tensor = 2;
      grid.is_sequence_parallel = is_sequence_parallel;
      grid.is_grid_invariant = true;
      grid.tensor_strips = 2;
      if (is_sequence_parallel && grid.data > 1) continue;
      ASSERT_TRUE(plan_on(golden, grid)) << to_string(grid);
      expect_same_bits(want, trained_by_strips(golden, grid, 3), to_string(grid));
    }
  }
}

// --- What is under way when --------------------------------------------------------------------------------

/// Holds tensor rank 1's `held`-th sum back until rank 0 has started the one behind it.
class HoldingSums final : public ForwardingCommunicator {
 public:
  HoldingSums(Communicator& inner, int held) : ForwardingCommunicator(inner), held_(held) {}
  HoldingSums(std::unique_ptr<Communicator> inner, int held)
      : ForwardingCommunicator(std::move(inner)), held_(held) {}

  std::unique_ptr<Communicator> split(int color, int key) override {
    std::unique_ptr<Communicator> part = inner().split(color, key);
    return part != nullptr ? std::make_unique<HoldingSums>(std::move(part), held_) : nullptr;
  }
  Transfer start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) override {
    hold();
    return inner().start_all_reduce(inout, reduce, order);
  }
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override {
    hold();
    return inner().start_reduce_scatter(whole, part, order);
  }

 private:
  void hold() {
    ++started_;
    int32_t go = 0;
    const Tensor message(&go, {1}, DType::i32);
    if (rank() == 1 && started_ == held_) inner().irecv(message, 0, Lane::control).wait();
    if (rank() == 0 && started_ == held_ + 1) inner().isend(message, 1, Lane::control).wait();
  }

  int held_;
  int started_ = 0;
};

TEST(TensorStrips, TheTraceShowsASumUnderWayWhileTheNextStripIsMultiplied) {
  const CurveCase golden("llama-bias");
  for (bool is_sequence_parallel : {false, true}) {
    const Grid grid{.tensor = 2, .is_sequence_parallel = is_sequence_parallel, .tensor_strips = 2};
    const TemporaryDirectory directory;
    const auto file = directory.path() / "trace.json";
    run_thread_ranks(grid.world(), [&](Communicator& host) {
      // The first two sums are the embedding's, the third that of the first block's heads.
      HoldingSums world(host, 3);
      const Batches batches(
          *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
          {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
      const Plan plan = *plan_on(golden, grid);
      Trainer trainer(golden.spec, golden.optimizer, plan, world, {});
      load_golden_weights(golden.weights, trainer);
      RunTrace trace(host, file, {.rank = host.rank()}, host_clock(), SpanTimes::happened,
                     trainer.spans_of_a_step());
      trainer.set_tracer(&trace.tracer());
      trace.tracer().begin(1);
      trainer.step(batches, 1, golden.steps);
      EXPECT_EQ(trace.tracer().dropped(), 0);
      trace.write();
      trace.close();
      host.barrier();
      if (host.rank() != 0) return;
      // 1. Sums and gathers of the layers have lanes of their own, two for strips that are under way
      // together.
      std::vector<Json> sums;
      std::map<int, std::string> lanes;
      for (const Json& event : read_json(file)) {
        if (event["name"] == "thread_name") lanes[event["tid"].get<int>()] = event["args"]["name"];
        if (event["ph"] == "X" && event["pid"] == 0 && event["name"] == "tensor sum") sums.push_back(event);
      }
      ASSERT_GE(sums.size(), 4u);
      std::set<std::string> used;
      for (const Json& sum : sums) used.insert(lanes.at(sum["tid"].get<int>()));
      EXPECT_TRUE(used.contains("tensor collectives under way, 1"));
      EXPECT_TRUE(used.contains("tensor collectives under way, 2"));
      // 2. The held one was under way until its neighbour had been computed and had set out.
      const auto begin = [](const Json& sum) { return sum["ts"].get<double>(); };
      const auto end = [&](const Json& sum) { return begin(sum) + sum["dur"].get<double>(); };
      std::ranges::sort(sums, {}, begin);
      EXPECT_LT(begin(sums[2]), begin(sums[3]));
      EXPECT_GT(end(sums[2]), begin(sums[3]));
    });
  }
}

/// Calls a function when a sum of the group, numbered from 1, is about to be waited for.
class WatchedSums final : public ForwardingCommunicator {
 public:
  using Waited = std::function<void(int number)>;
  WatchedSums(Communicator& inner, Waited waited)
      : ForwardingCommunicator(inner), waited_(std::move(waited)) {}
  WatchedSums(std::unique_ptr<Communicator> inner, Waited waited)
      : ForwardingCommunicator(std::move(inner)), waited_(std::move(waited)) {}

  std::unique_ptr<Communicator> split(int color, int key) override {
    std::unique_ptr<Communicator> part = inner().split(color, key);
    return part != nullptr ? std::make_unique<WatchedSums>(std::move(part), waited_) : nullptr;
  }
  Transfer start_all_reduce(Tensor inout, Reduce reduce, SumOrder order) override {
    started_.push_back(inner().start_all_reduce(inout, reduce, order));
    return Transfer(this, std::ssize(started_));
  }
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override {
    started_.push_back(inner().start_reduce_scatter(whole, part, order));
    return Transfer(this, std::ssize(started_));
  }

 private:
  void finish(int64_t number) override {
    waited_(static_cast<int>(number));
    started_[static_cast<size_t>(number - 1)].wait();
  }

  Waited waited_;
  std::vector<Transfer> started_;
};

// The cheapest overlap needs no strips: what an input's gradient is summed beside is the product of its
// weight.
TEST(TensorStrips, AGradientsSumIsWaitedForBehindTheProductOfItsWeight) {
  const CurveCase golden("llama-bias");
  for (bool is_sequence_parallel : {false, true}) {
    const Grid grid{.tensor = 2, .is_sequence_parallel = is_sequence_parallel};
    run_thread_ranks(grid.world(), [&](Communicator& host) {
      Trainer* built = nullptr;
      const auto is_made = [&](Role role, int unit) {
        for (const PlacedWeight& weight : built->model().placed()) {
          if (weight.spec.role != role || weight.spec.unit != unit) continue;
          const auto values =
              built->model().written_gradients().at({weight.offset, weight.box.numel()}).span<float>();
          return std::ranges::any_of(values, [](float value) { return value != 0; });
        }
        ADD_FAILURE() << "no such weight in unit " << unit;
        return false;
      };
      // Forward: the embedding and two of each block; the head's. Then each block's two, the last block
      // first.
      const int before = 1 + 2 * static_cast<int>(golden.spec.L) + 1;
      int seen = 0;
      WatchedSums world(host, [&](int number) {
        const int unit = static_cast<int>(golden.spec.L) - (number - before - 1) / 2;
        if (built == nullptr || number <= before || unit < 1) return;
        ++seen;
        const bool is_first = (number - before) % 2 == 1;
        EXPECT_TRUE(is_made(is_first ? Role::gate : Role::q, unit)) << number;
        if (is_first) {
          EXPECT_FALSE(is_made(Role::q, unit)) << number;
        }
      });
      Trainer trainer(golden.spec, golden.optimizer, *plan_on(golden, grid), world, {});
      load_golden_weights(golden.weights, trainer);
      const Batches batches(
          *golden.source, {.sequence_length = golden.sequence_length, .packing = RowPacking::off},
          {.micro = grid.micro, .global = golden.global, .data = grid.data}, {.shuffle = Shuffle::off});
      built = &trainer;
      trainer.step(batches, 1, golden.steps);
      EXPECT_EQ(seen, 2 * golden.spec.L);  // of the first micro-batch
    });
  }
}

}  // namespace
}  // namespace ptrain
