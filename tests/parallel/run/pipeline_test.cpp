#include "parallel/run/pipeline.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "kernels/base/error.h"
#include "tests/support/ranks.h"
#include "tests/support/schedules.h"

namespace ptrain {
namespace {

/// The stages of a rank; they record what they are told and compute with numbers that tell micro, stage and
/// element apart: forward y = 2 x + stage + 1, backward dx = 3 dy + stage + 1. On the last stage forward
/// leaves dy = y, as a fused head and loss does. A backward in halves leaves dy where y was, for the weights.
/// All memory is reused slot by slot, so a slot that is overwritten while it travels shows as a wrong number
/// further down.
class RecordingStages : public StageWork {
 public:
  RecordingStages(const StageMap& map, int position, const std::vector<int>& slots,
                  const std::vector<int64_t>& bundle)
      : map_(map), position_(position) {
    for (int count : slots) {
      std::vector<Slot>& chunk = slots_.emplace_back(static_cast<size_t>(count));
      for (Slot& slot : chunk) {
        for (Part* part : {&slot.x, &slot.y, &slot.d}) {
          for (int64_t elements : bundle) part->emplace_back(static_cast<size_t>(elements));
        }
      }
    }
  }

  void forward(const Action& action) override {
    played.push_back(action);
    Slot& slot = slot_at(action.chunk, action.slot);
    const int stage = stage_of(action);
    for_each(slot.x, [&](size_t tensor, size_t i) {
      double& x = slot.x[tensor][i];
      if (stage == 0) x = action.micro + 0.5 * static_cast<double>(tensor) + per_element(i);
      expect(action, x, expected_x(stage, action.micro, tensor, i));
      slot.y[tensor][i] = 2 * x + stage + 1;
      if (map_.is_last(stage)) slot.d[tensor][i] = slot.y[tensor][i];
    });
    nap();
  }

  void backward(const Action& action) override {
    played.push_back(action);
    if (action.bucket > 0) return;
    Slot& slot = slot_at(action.chunk, action.slot);
    const int stage = stage_of(action);
    for_each(slot.d, [&](size_t tensor, size_t i) {
      double &y = slot.y[tensor][i], &d = slot.d[tensor][i];
      expect(action, slot.x[tensor][i], expected_x(stage, action.micro, tensor, i));
      const bool is_weights = action.kind == ActionKind::backward_weights;
      expect(action, is_weights ? y : d, expected_d(stage, action.micro, tensor, i));
      if (is_weights) return;
      if (action.kind == ActionKind::backward_input) y = d;
      d = 3 * d + stage + 1;
    });
    nap();
  }

  void hand(const Action& action) override {
    played.push_back(action);
    Slot& from = slot_at(action.chunk, action.slot);
    Slot& to = slot_at(action.to_chunk, action.to_slot);
    if (action.kind == ActionKind::hand_activation) {
      to.x = from.y;
    } else {
      to.d = from.d;
    }
  }

  void reduce(const Action& action) override { played.push_back(action); }

  std::span<const Tensor> tensors(const Action& action) override {
    if (is_receive(action.kind)) nap();  // so that a send lies and waits, and overwriting it would show
    bundle_.clear();
    const auto add = [&](std::vector<double>& values) {
      bundle_.push_back(Tensor(values.data(), {static_cast<int64_t>(values.size())}, DType::f64));
    };
    Slot& slot = slot_at(action.chunk, action.slot);
    Part& part = action.kind == ActionKind::receive_activation ? slot.x
                 : action.kind == ActionKind::send_activation  ? slot.y
                                                               : slot.d;
    for (std::vector<double>& values : part) add(values);
    return bundle_;
  }

  std::vector<Action> played;  // compute, hands and reductions, in order
  int nap_us = 0;

 private:
  using Part = std::vector<std::vector<double>>;  // [tensor of the bundle][element]
  struct Slot {
    Part x, y, d;
  };

  static double per_element(size_t i) { return static_cast<double>(i % 17) / 64; }
  template <class Body>
  static void for_each(const Part& part, const Body& body) {
    for (size_t tensor = 0; tensor < part.size(); ++tensor) {
      for (size_t i = 0; i < part[tensor].size(); ++i) body(tensor, i);
    }
  }
  int stage_of(const Action& action) const { return map_.stage_of(position_, action.chunk); }
  Slot& slot_at(int chunk, int slot) { return slots_[static_cast<size_t>(chunk)][static_cast<size_t>(slot)]; }
  static double expected_x(int stage, int micro, size_t tensor, size_t i) {
    double x = micro + 0.5 * static_cast<double>(tensor) + per_element(i);
    for (int before = 0; before < stage; ++before) x = 2 * x + before + 1;
    return x;
  }
  double expected_d(int stage, int micro, size_t tensor, size_t i) const {
    double d = expected_x(map_.stages(), micro, tensor, i);
    for (int after = map_.stages() - 1; after > stage; --after) d = 3 * d + after + 1;
    return d;
  }
  void expect(const Action& action, double value, double expected) const {
    if (value == expected) return;  // millions of them: only the wrong ones cost
    ADD_FAILURE() << to_string(action) << " of stage " << stage_of(action) << " sees " << value << ", not "
                  << expected;
  }
  void nap() const {
    if (nap_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(nap_us));
  }

  StageMap map_;
  int position_;
  std::vector<std::vector<Slot>> slots_;  // [chunk][slot]
  std::vector<Tensor> bundle_;
};

struct Lowered {
  StageMap map{1};
  Schedule schedule;
  std::vector<std::vector<int>> slots;
};

enum class Receives { in_place, early };

Lowered lowered(const char* name, int positions, int micros, int buckets,
                Receives receives = Receives::early) {
  const NamedSchedule& named = named_schedule(name);
  Lowered result{.map = named.map(positions), .schedule = {}, .slots = {}};
  Schedule schedule = with_transfers(named.make(result.map, micros), result.map);
  schedule = with_reductions(std::move(schedule), result.map,
                             std::vector<int>(static_cast<size_t>(result.map.stages()), buckets));
  result.schedule = with_slots(std::move(schedule), result.map);
  if (receives == Receives::early) result.schedule = with_early_receives(std::move(result.schedule));
  result.slots = slots_of(result.schedule, result.map);
  return result;
}

/// Plays it twice on every rank and checks numbers (inside the stages) and order.
void play(Communicator& pipeline, const Lowered& plan, const std::vector<int64_t>& bundle, int nap_us) {
  const auto position = static_cast<size_t>(pipeline.rank());
  const std::vector<Action>& program = plan.schedule.programs[position];
  RecordingStages stages(plan.map, pipeline.rank(), plan.slots[position], bundle);
  // Uneven: odd stages and even ones wait for each other in turn.
  stages.nap_us = pipeline.rank() % 2 == 0 ? nap_us : 0;
  Pipeline player(program, &pipeline);
  std::vector<Action> expected;
  for (const Action& action : program) {
    if (!is_send(action.kind) && !is_receive(action.kind)) expected.push_back(action);
  }
  for (int step = 1; step <= 2; ++step) {
    stages.played.clear();
    player.run(stages);
    EXPECT_EQ(stages.played, expected);
    double now_s = 0;
    for (const Interval& interval : player.intervals()) {
      EXPECT_GE(interval.begin_s, now_s);
      EXPECT_GE(interval.end_s, interval.begin_s);
      now_s = interval.end_s;
    }
  }
}

TEST(Pipeline, EveryMicroGetsItsOwnNumbersThroughEveryStage) {
  for (const NamedSchedule& named : all_schedules()) {
    for (int positions : {1, 2, 3, 4}) {
      for (int micros : {1, 2, 3, 8}) {
        const Lowered plan = lowered(named.name, positions, micros, 3);
        ASSERT_EQ(
            fault_of(plan.schedule, plan.map, std::vector<int>(static_cast<size_t>(plan.map.stages()), 3)),
            "");
        run_ranks(positions, [&](Communicator& pipeline) { play(pipeline, plan, {7, 24}, 0); });
      }
    }
  }
}

TEST(Pipeline, LargeMessagesBetweenUnevenStagesNeitherBlockNorOverwriteASlot) {
  // 1.2 MB: above the size up to which MPI sends without waiting for the receiver.
  for (const NamedSchedule& named : all_schedules()) {
    for (int positions : {2, 3}) {
      for (Receives receives : {Receives::in_place, Receives::early}) {
        const Lowered plan = lowered(named.name, positions, 5, 2, receives);
        run_ranks(positions, [&](Communicator& pipeline) { play(pipeline, plan, {150'001, 3}, 2000); });
      }
    }
  }
}

TEST(Pipeline, ForwardsAloneGoThroughEveryStageInTheSlotsOfTheSchedule) {
  for (const NamedSchedule& named : all_schedules()) {
    for (int positions : {1, 2, 3, 4}) {
      Lowered plan = lowered(named.name, positions, 7, 1);
      plan.schedule = forwards_of(plan.schedule, plan.map);
      run_ranks(positions, [&](Communicator& pipeline) { play(pipeline, plan, {70'001}, 100); });
    }
  }
}

TEST(Pipeline, AProgramWithoutSlotsIsRefused) {
  const StageMap map(1);
  EXPECT_THROW(Pipeline(one_f_one_b(map, 2).programs[0], nullptr), Error);
}

TEST(Pipeline, TransfersWithoutACommunicatorAreRefused) {
  const Lowered plan = lowered("1f1b", 2, 2, 1);
  EXPECT_THROW(Pipeline(plan.schedule.programs[0], nullptr), Error);
}

class FailingStages : public RecordingStages {
 public:
  using RecordingStages::RecordingStages;
  void forward(const Action& action) override {
    if (action.micro == 2) fail(ExitCode::numerical, "micro-batch 2 is not finite");
    RecordingStages::forward(action);
  }
};

TEST(Pipeline, AFailingStageEndsAllRanksWithItsReason) {
  if (mpi_ranks.world != nullptr) GTEST_SKIP() << "by MPI a failing rank ends the whole job";
  const Lowered plan = lowered("1f1b", 3, 5, 1);
  try {
    run_thread_ranks(3, [&](Communicator& pipeline) {
      const auto position = static_cast<size_t>(pipeline.rank());
      FailingStages bad(plan.map, pipeline.rank(), plan.slots[position], {4});
      RecordingStages good(plan.map, pipeline.rank(), plan.slots[position], {4});
      Pipeline player(plan.schedule.programs[position], &pipeline);
      player.run(pipeline.rank() == 1 ? static_cast<StageWork&>(bad) : good);
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerical);
    EXPECT_STREQ(error.what(), "micro-batch 2 is not finite");
  }
}

}  // namespace
}  // namespace ptrain
