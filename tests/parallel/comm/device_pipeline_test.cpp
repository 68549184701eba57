// A pipeline whose stages work on device memory: activations and gradients travel in the order of streams.
#include <gtest/gtest.h>

#include <atomic>

#include "parallel/run/pipeline.h"
#include "tests/parallel/plan/random_cases.h"
#include "tests/support/device_ranks.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/fake_nccl.h"

namespace ptrain {
namespace {

/// Computes with numbers that tell micro, stage and element apart: forward y = 2 x + stage + 1, backward
/// dx = 3 dy + stage + 1; on the last stage forward leaves dy = y. Slots are used again and again, so memory
/// that is overwritten or read at the wrong time shows as a wrong number in the work that reads it.
class DeviceStage : public StageWork {
 public:
  DeviceStage(const Stream& compute, int stage, int stages, int slots)
      : compute_(compute), stage_(stage), stages_(stages) {
    for (int slot = 0; slot < slots; ++slot) {
      slots_.push_back({OwnedTensor({2 * elements}, DType::f64, gpu),
                        OwnedTensor({2 * elements}, DType::f64, gpu),
                        OwnedTensor({2 * elements}, DType::f64, gpu)});
    }
  }

  void forward(const Action& action) override {
    enqueue(compute_, [this, action] {
      Slot& slot = slots_[static_cast<size_t>(action.slot)];
      for (int64_t i = 0; i < 2 * elements; ++i) {
        double& x = slot.x.view.as<double>()[i];
        if (stage_ == 0) x = first_x(action.micro, i);
        if (x != expected_x(stage_, action.micro, i)) ++wrong;
        slot.y.view.as<double>()[i] = 2 * x + stage_ + 1;
        if (stage_ + 1 == stages_) slot.d.view.as<double>()[i] = slot.y.view.as<double>()[i];
      }
    });
  }
  void backward(const Action& action) override {
    if (action.bucket > 0) return;
    enqueue(compute_, [this, action] {
      Slot& slot = slots_[static_cast<size_t>(action.slot)];
      for (int64_t i = 0; i < 2 * elements; ++i) {
        double& d = slot.d.view.as<double>()[i];
        if (d != expected_d(action.micro, i)) ++wrong;
        if (slot.x.view.as<double>()[i] != expected_x(stage_, action.micro, i)) ++wrong;
        d = 3 * d + stage_ + 1;
      }
    });
  }
  void hand(const Action& action) override { fail(ExitCode::defect, "{} on one stage", to_string(action)); }
  void reduce(const Action&) override {}
  std::span<const Tensor> tensors(const Action& action) override {
    bundle_.clear();
    Slot& slot = slots_[static_cast<size_t>(action.slot)];
    const Tensor all = action.kind == ActionKind::receive_activation ? slot.x.view
                       : action.kind == ActionKind::send_activation  ? slot.y.view
                                                                     : slot.d.view;
    for (int64_t half : {0, 1})
      bundle_.push_back(Tensor(all.at(half * elements), {elements}, DType::f64, gpu));
    return bundle_;
  }

  static constexpr int64_t elements = 19;
  int wrong = 0;

 private:
  struct Slot {
    OwnedTensor x, y, d;
  };
  static double first_x(int micro, int64_t i) { return micro + static_cast<double>(i % 17) / 64; }
  static double expected_x(int stage, int micro, int64_t i) {
    double x = first_x(micro, i);
    for (int before = 0; before < stage; ++before) x = 2 * x + before + 1;
    return x;
  }
  double expected_d(int micro, int64_t i) const {
    double d = expected_x(stages_, micro, i);
    for (int after = stages_ - 1; after > stage_; --after) d = 3 * d + after + 1;
    return d;
  }

  const Stream& compute_;
  int stage_, stages_;
  std::vector<Slot> slots_;
  std::vector<Tensor> bundle_;
};

Plan plan_of(ScheduleName schedule, int pipeline) {
  const ParallelConfig parallel{
      .pipeline = pipeline, .schedule = schedule, .global = 5, .sequence_length = 24};
  return make_plan(toy_workload({}, Tied::apart), parallel, pipeline);
}

/// Plays the plan twice; returns how many numbers were wrong, over all ranks.
int play(const Plan& plan, Through through, uint64_t seed) {
  std::atomic<int> wrong = 0;
  const DeviceTest test{.mesh = plan.mesh, .through = through, .seed = seed, .edges = transfer_edges(plan)};
  run_device_ranks(test, [&](DeviceRank& at) {
    const int position = at.host.rank(), positions = at.host.size();
    DeviceStage stage(at.compute, position, positions, plan.slots[static_cast<size_t>(position)][0]);
    Pipeline pipeline(plan.program(position), at.comms.pipeline.get());
    for (int step = 1; step <= 2; ++step) {
      const int64_t waited = emulation::counts().synchronizations;
      pipeline.run(stage);
      if (through != Through::host) {
        EXPECT_EQ(emulation::counts().synchronizations, waited);
      }
    }
    at.compute.synchronize();  // what is enqueued counts wrong numbers, in memory of the stage
    if (through != Through::host) {
      EXPECT_EQ(at.comms.pipeline->scratch_growths(), 0);
    }
    wrong += stage.wrong;
  });
  return wrong;
}

TEST(DevicePipeline, EveryMicroGetsItsOwnNumbersThroughEveryStage) {
  for (Through through : {Through::nccl, Through::eager_nccl, Through::host}) {
    for (ScheduleName schedule : {ScheduleName::gpipe, ScheduleName::one_f_one_b}) {
      for (int positions : {2, 3, 4}) {
        const Plan plan = plan_of(schedule, positions);
        for (uint64_t seed = 1; seed <= 2; ++seed)
          EXPECT_EQ(play(plan, through, seed), 0) << name_of(through) << ", " << name_of(schedule) << ", "
                                                  << positions << " stages, seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace ptrain
