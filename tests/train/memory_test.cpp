// What ranks hold of gradients and parameters: under ZeRO 2 and 3 never all, by the plan's ledger and in the
// memory of the run; and that a run which takes other memory than its plan says does not start.
#include <gtest/gtest.h>

#include <set>

#include "parallel/plan/places.h"
#include "tests/parallel/plan/random_cases.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// Bytes of memory, each once.
class Memory {
 public:
  void add(Tensor tensor) {
    const char* begin = static_cast<const char*>(tensor.data);
    if (tensor.bytes() > 0) runs_.insert({begin, begin + tensor.bytes()});
  }
  int64_t bytes() const {
    int64_t sum = 0;
    const char* end = nullptr;
    for (const auto& [first, last] : runs_) {  // ascending
      sum += std::max<int64_t>(0, last - std::max(first, end));
      end = std::max(end, last);
    }
    return sum;
  }

 private:
  std::set<std::pair<const char*, const char*>> runs_;
};

/// All memory in which the layers' tensors or the rank's shards of them lie.
int64_t held_bytes(const FlatLayout& layout, int data, const FlatMemory& of_layers, const FlatMemory& owned) {
  Memory memory;
  for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
    memory.add(of_layers.at(layout.buckets[bucket].elements));
    memory.add(owned.at(shard_of(layout, static_cast<int>(bucket), data)));
  }
  return memory.bytes();
}

int64_t largest_grant(const Arena& arena, const std::string& what) {
  int64_t largest = 0;
  for (const Arena::Grant& grant : arena.grants()) {
    if (grant.name.starts_with(what)) largest = std::max(largest, grant.bytes);
  }
  return largest;
}

TEST(Memory, OfNoRankHoldsAllGradientsUnderZeroTwoNorAllParametersUnderThree) {
  const CurveCase golden("llama-grid");
  for (Grid grid :
       {Grid{.data = 2}, Grid{.data = 4}, Grid{.tensor = 2, .data = 4, .is_sequence_parallel = true},
        Grid{.pipeline = 2, .data = 4}, Grid{.pipeline = 2, .data = 4, .recompute = Recompute::full}}) {
    for (int zero : {0, 1, 2, 3}) {
      grid.zero = zero;
      run_thread_ranks(grid.world(), [&](Communicator& world) {
        const Plan plan = *plan_on(golden, grid);
        Trainer trainer(golden.spec, golden.optimizer, plan, world, Context{});
        const Model& model = trainer.model();
        const FlatLayout& layout = model.layout();
        const int data = trainer.coordinate().data;
        const std::string what = fmt::format("rank {}, {}", world.rank(), to_string(grid));
        const int64_t all_bytes = layout.trainable_elements * size_bytes(DType::f32);
        const int64_t gradients =
            held_bytes(layout, data, model.written_gradients(), model.summed_gradients());
        const int64_t parameters =
            held_bytes(layout, data, model.read_parameters(), model.owned_parameters());
        const Ledger ledger = ledger_of(plan, world.rank());
        EXPECT_EQ(zero < 2, gradients == all_bytes) << what;
        EXPECT_EQ(zero < 3, parameters == all_bytes) << what;
        EXPECT_EQ(zero < 2, largest_grant(model.arena(), "gradients") == all_bytes) << what;
        EXPECT_EQ(zero < 3, largest_grant(model.arena(), "parameters") == all_bytes) << what;
        if (zero >= 2) {
          EXPECT_LT(gradients, all_bytes) << what;
          EXPECT_EQ(ledger.bytes(MemoryKind::gradients), all_bytes / grid.data) << what;
        }
        if (zero == 3) {
          EXPECT_LT(parameters, all_bytes) << what;
          EXPECT_EQ(ledger.bytes(MemoryKind::weights), all_bytes / grid.data) << what;
        }
      });
    }
  }
}

// Of a deep model little more than the shards remains: two blocks and the ends.
TEST(Memory, OfADeepModelIsItsShardsAndAFewUnits) {
  const Workload workload = toy_workload({.V = 256, .C = 64, .L = 64, .H = 8, .K = 8, .D = 8, .F = 96});
  for (int data : {2, 4, 64}) {
    ParallelConfig parallel{.data = data, .global = data, .sequence_length = 24};
    const auto plan_of = [&](int zero) {
      parallel.zero = zero;
      return make_plan(workload, parallel, data);
    };
    const Plan plan = plan_of(3);
    const FlatLayout layout = flat_layout_of(plan, 0);
    int64_t units = 0;
    for (int64_t elements : unit_places(plan, layout).elements) units += elements;
    const Ledger ledger = ledger_of(plan, 0);
    const int64_t shards = layout.trainable_elements / data * 4;
    EXPECT_EQ(ledger.bytes(MemoryKind::gradients) + ledger.bytes(MemoryKind::weights), 2 * shards);
    EXPECT_EQ(ledger.bytes(MemoryKind::communication), 2 * units * 4);
    EXPECT_LT(units, layout.trainable_elements / 16);
    const auto state_of = [](const Ledger& of) {
      return of.bytes(MemoryKind::weights) + of.bytes(MemoryKind::gradients) + of.bytes(MemoryKind::moments) +
             of.bytes(MemoryKind::communication);
    };
    for (int zero = 1; zero <= 3; ++zero)
      EXPECT_LT(state_of(ledger_of(plan_of(zero), 0)), state_of(ledger_of(plan_of(zero - 1), 0))) << zero;
  }
}

TEST(Memory, ThatIsNotAsPlannedStopsTheRunBeforeItsFirstStep) {
  const CurveCase golden("llama-bias");
  const auto build = [&](const std::function<void(Plan&)>& plant) {
    run_thread_ranks(1, [&](Communicator& world) {
      Plan plan = *plan_on(golden, {});
      plant(plan);
      Trainer(golden.spec, golden.optimizer, plan, world, Context{});
    });
  };
  EXPECT_NO_THROW(build([](Plan&) {}));
  const std::function<void(Plan&)> plants[] = {
      [](Plan& plan) { plan.workload.units[1].kept[0].columns += 1; },
      [](Plan& plan) { plan.workload.units[1].scratch[0].columns += 1; },
      [](Plan& plan) { plan.workload.units[1].kept.erase(plan.workload.units[1].kept.begin()); },
      [](Plan& plan) { plan.workload.tables[0].columns *= 2; },
  };
  for (const auto& plant : plants) {
    try {
      build(plant);
      ADD_FAILURE() << "was not seen";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("rank 0 took "), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(" bytes, its plan says "), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace ptrain
