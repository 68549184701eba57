#include "parallel/run/pipeline.h"

#include <chrono>
#include <thread>

#include "kernels/base/error.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// A stage that records what it is told and computes with numbers that tell micro, stage and element apart:
/// forward y = 2 x + stage + 1, backward dx = 3 dy + stage + 1. On the last stage forward leaves dy = y, as a
/// fused head and loss does. All memory is reused slot by slot, so a slot that is overwritten while it
/// travels shows as a wrong number further down.
class RecordingStage : public StageWork {
 public:
  RecordingStage(int stage, int stages, int slots, std::vector<int64_t> bundle)
      : stage_(stage), stages_(stages), slots_(static_cast<size_t>(slots)) {
    for (Slot& slot : slots_) {
      for (std::vector<std::vector<double>>* part : {&slot.x, &slot.y, &slot.d}) {
        for (int64_t elements : bundle) part->emplace_back(static_cast<size_t>(elements));
      }
    }
    tied_.assign(5, stage == 0 ? 1.25 : 2.5);
    received_tied_.assign(5, -1);
  }

  void forward(const Action& action) override {
    played.push_back(action);
    Slot& slot = slots_[static_cast<size_t>(action.slot)];
    for (size_t tensor = 0; tensor < slot.x.size(); ++tensor) {
      for (size_t i = 0; i < slot.x[tensor].size(); ++i) {
        if (stage_ == 0)
          slot.x[tensor][i] = action.micro + 0.5 * static_cast<double>(tensor) + per_element(i);
        expect(action, slot.x[tensor][i], expected_x(stage_, action.micro, tensor, i));
        slot.y[tensor][i] = 2 * slot.x[tensor][i] + stage_ + 1;
        if (is_last()) slot.d[tensor][i] = slot.y[tensor][i];
      }
    }
    nap();
  }

  void backward(const Action& action) override {
    played.push_back(action);
    if (action.bucket > 0) return;
    Slot& slot = slots_[static_cast<size_t>(action.slot)];
    for (size_t tensor = 0; tensor < slot.d.size(); ++tensor) {
      for (size_t i = 0; i < slot.d[tensor].size(); ++i) {
        expect(action, slot.d[tensor][i], expected_d(stage_, action.micro, tensor, i));
        expect(action, slot.x[tensor][i], expected_x(stage_, action.micro, tensor, i));
        slot.d[tensor][i] = 3 * slot.d[tensor][i] + stage_ + 1;
      }
    }
    nap();
  }

  void reduce(const Action& action) override { played.push_back(action); }

  void add_tied(const Action& action) override {
    played.push_back(action);
    for (size_t i = 0; i < tied_.size(); ++i) tied_[i] += received_tied_[i];
  }

  std::span<const Tensor> tensors(const Action& action) override {
    if (is_receive(action.kind)) nap();  // so that a send lies and waits, and overwriting it would show
    bundle_.clear();
    const auto add = [&](std::vector<double>& values) {
      bundle_.push_back(Tensor(values.data(), {static_cast<int64_t>(values.size())}, DType::f64));
    };
    if (lane_of(action.kind) == TransferLane::tied) {
      add(action.kind == ActionKind::send_tied ? tied_ : received_tied_);
      return bundle_;
    }
    Slot& slot = slots_[static_cast<size_t>(action.slot)];
    auto& part = action.kind == ActionKind::receive_activation ? slot.x
                 : action.kind == ActionKind::send_activation  ? slot.y
                                                               : slot.d;
    for (std::vector<double>& values : part) add(values);
    return bundle_;
  }

  const std::vector<double>& tied() const { return tied_; }

  std::vector<Action> played;  // compute, reductions and sums, in order
  int nap_us = 0;

 private:
  struct Slot {
    std::vector<std::vector<double>> x, y, d;
  };

  static double per_element(size_t i) { return static_cast<double>(i % 17) / 64; }
  bool is_last() const { return stage_ + 1 == stages_; }
  static double expected_x(int stage, int micro, size_t tensor, size_t i) {
    double x = micro + 0.5 * static_cast<double>(tensor) + per_element(i);
    for (int before = 0; before < stage; ++before) x = 2 * x + before + 1;
    return x;
  }
  double expected_d(int stage, int micro, size_t tensor, size_t i) const {
    double d = expected_x(stages_, micro, tensor, i);
    for (int after = stages_ - 1; after > stage; --after) d = 3 * d + after + 1;
    return d;
  }
  void expect(const Action& action, double value, double expected) const {
    if (value == expected) return;  // millions of them: only the wrong ones cost
    ADD_FAILURE() << to_string(action) << " of stage " << stage_ << " sees " << value << ", not " << expected;
  }
  void nap() const {
    if (nap_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(nap_us));
  }

  int stage_, stages_;
  std::vector<Slot> slots_;
  std::vector<double> tied_, received_tied_;
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
  Lowered result;
  result.map = StageMap(positions);
  Schedule schedule =
      name == std::string("gpipe") ? gpipe(result.map, micros) : one_f_one_b(result.map, micros);
  schedule = with_transfers(std::move(schedule), result.map);
  schedule = with_reductions(std::move(schedule), result.map,
                             std::vector<int>(static_cast<size_t>(positions), buckets));
  schedule = with_tied_sum(std::move(schedule), result.map);
  result.schedule = with_slots(std::move(schedule), result.map);
  if (receives == Receives::early) result.schedule = with_early_receives(std::move(result.schedule));
  result.slots = slots_of(result.schedule, result.map);
  return result;
}

/// Plays it twice on every rank and checks numbers (inside the stage) and order.
void play(Communicator& pipeline, const Lowered& plan, const std::vector<int64_t>& bundle, int nap_us) {
  const auto position = static_cast<size_t>(pipeline.rank());
  const std::vector<Action>& program = plan.schedule.programs[position];
  RecordingStage stage(pipeline.rank(), plan.map.positions(), plan.slots[position][0], bundle);
  // Uneven: odd stages and even ones wait for each other in turn.
  stage.nap_us = pipeline.rank() % 2 == 0 ? nap_us : 0;
  Pipeline player(program, &pipeline);
  std::vector<Action> expected;
  for (const Action& action : program) {
    if (!is_send(action.kind) && !is_receive(action.kind)) expected.push_back(action);
  }
  for (int step = 1; step <= 2; ++step) {
    stage.played.clear();
    player.run(stage);
    EXPECT_EQ(stage.played, expected);
    double now_s = 0;
    for (const Interval& interval : player.intervals()) {
      EXPECT_GE(interval.begin_s, now_s);
      EXPECT_GE(interval.end_s, interval.begin_s);
      now_s = interval.end_s;
    }
    const bool is_end = pipeline.rank() == 0 || pipeline.rank() + 1 == pipeline.size();
    if (pipeline.size() > 1 && is_end) {
      for (double value : stage.tied()) EXPECT_EQ(value, step * 3.75);
    }
  }
}

TEST(Pipeline, EveryMicroGetsItsOwnNumbersThroughEveryStage) {
  for (const char* name : {"gpipe", "1f1b"}) {
    for (int positions : {1, 2, 3, 4}) {
      for (int micros : {1, 2, 3, 8}) {
        const Lowered plan = lowered(name, positions, micros, 3);
        run_ranks(positions, [&](Communicator& pipeline) { play(pipeline, plan, {7, 24}, 0); });
      }
    }
  }
}

TEST(Pipeline, LargeMessagesBetweenUnevenStagesNeitherBlockNorOverwriteASlot) {
  // 1.2 MB: above the size up to which MPI sends without waiting for the receiver.
  for (const char* name : {"gpipe", "1f1b"}) {
    for (int positions : {2, 3}) {
      for (Receives receives : {Receives::in_place, Receives::early}) {
        const Lowered plan = lowered(name, positions, 5, 2, receives);
        run_ranks(positions, [&](Communicator& pipeline) { play(pipeline, plan, {150'001, 3}, 2000); });
      }
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

class FailingStage : public RecordingStage {
 public:
  using RecordingStage::RecordingStage;
  void forward(const Action& action) override {
    if (action.micro == 2) fail(ExitCode::numerical, "micro-batch 2 is not finite");
    RecordingStage::forward(action);
  }
};

TEST(Pipeline, AFailingStageEndsAllRanksWithItsReason) {
  if (mpi_ranks.world != nullptr) GTEST_SKIP() << "by MPI a failing rank ends the whole job";
  const Lowered plan = lowered("1f1b", 3, 5, 1);
  try {
    run_thread_ranks(3, [&](Communicator& pipeline) {
      const auto position = static_cast<size_t>(pipeline.rank());
      FailingStage bad(pipeline.rank(), 3, plan.slots[position][0], {4});
      RecordingStage good(pipeline.rank(), 3, plan.slots[position][0], {4});
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
