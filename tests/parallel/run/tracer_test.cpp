#include "parallel/run/tracer.h"

#include <array>
#include <map>

#include "kernels/base/error.h"
#include "parallel/comm/clock.h"
#include "parallel/run/pipeline.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// A clock that goes one second further with each look at it.
Tracer::Clock counting_clock() {
  return [seconds = 0.0]() mutable { return seconds += 1; };
}

TEST(Tracer, NotesSpansOfTheStepThatIsTracedAndNothingBetweenSteps) {
  Tracer tracer(counting_clock(), SpanTimes::happened, 8);
  const Action forward{.kind = ActionKind::forward, .chunk = 1, .micro = 3, .slot = 2};
  tracer.note(forward, 1, 2);
  { const PhaseSpan phase(&tracer, "rows"); }
  EXPECT_TRUE(tracer.spans().empty());
  EXPECT_FALSE(tracer.sees_transfers());

  tracer.begin(7);
  EXPECT_TRUE(tracer.sees_transfers());
  { const PhaseSpan phase(&tracer, "rows"); }
  tracer.note(forward, 5, 6);
  tracer.note("parameters", SpanCategory::collective, 6, 7);
  tracer.end();
  tracer.note(forward, 8, 9);
  ASSERT_EQ(tracer.spans().size(), 3u);
  EXPECT_EQ(tracer.spans()[0].name, "rows");
  EXPECT_EQ(tracer.spans()[0].category, SpanCategory::phase);
  EXPECT_EQ(tracer.spans()[0].begin_s, 1);
  EXPECT_EQ(tracer.spans()[0].end_s, 2);
  EXPECT_EQ(tracer.spans()[1].name, "forward");
  EXPECT_EQ(tracer.spans()[1].category, SpanCategory::compute);
  EXPECT_EQ(tracer.spans()[1].step, 7);
  EXPECT_EQ(tracer.spans()[1].chunk, 1);
  EXPECT_EQ(tracer.spans()[1].micro, 3);
  EXPECT_EQ(tracer.spans()[1].bucket, -1);
  EXPECT_EQ(tracer.spans()[2].category, SpanCategory::collective);

  tracer.begin(8);
  EXPECT_TRUE(tracer.spans().empty());
}

TEST(Tracer, WhatDoesNotFitIsCountedAndTakesNoMemory) {
  Tracer tracer(counting_clock(), SpanTimes::happened, 3);
  tracer.begin(1);
  const Span* const memory = tracer.spans().data();
  for (int micro = 0; micro < 5; ++micro)
    tracer.note({.kind = ActionKind::forward, .micro = micro}, micro, micro + 1);
  EXPECT_EQ(tracer.spans().size(), 3u);
  EXPECT_EQ(tracer.spans().data(), memory);
  EXPECT_EQ(tracer.dropped(), 2);
  tracer.begin(2);
  EXPECT_EQ(tracer.dropped(), 0);
}

TEST(Tracer, APhaseWithoutATracerIsNothing) {
  const PhaseSpan phase(nullptr, "rows");
}

/// Moves bundles of three floats.
class SmallStage : public StageWork {
 public:
  explicit SmallStage(const std::vector<int>& slots) {
    for (int count : slots) buffers_.emplace_back(static_cast<size_t>(count));
  }

  void forward(const Action&) override {}
  void backward(const Action&) override {}
  void hand(const Action&) override {}
  void reduce(const Action&) override {}
  std::span<const Tensor> tensors(const Action& action) override {
    const size_t which = action.kind == ActionKind::receive_activation ? 0
                         : action.kind == ActionKind::send_activation  ? 1
                                                                       : 2;
    auto& slot = buffers_[static_cast<size_t>(action.chunk)][static_cast<size_t>(action.slot)];
    tensor_ = Tensor(slot[which].data(), {3}, DType::f32);
    return {&tensor_, 1};
  }

 private:
  std::vector<std::vector<std::array<std::array<float, 3>, 3>>>
      buffers_;  // [chunk][slot][input, output, gradient]
  Tensor tensor_;
};

constexpr int positions = 3, micros = 5;

Schedule lowered(const Schedule& plain, const StageMap& map) {
  const std::vector<int> buckets(static_cast<size_t>(map.stages()), 2);
  Schedule schedule = with_reductions(with_transfers(plain, map), map, buckets);
  return with_early_receives(with_slots(std::move(schedule), map));
}

std::string name_of(const Span& span) {
  return fmt::format("{} {}'{}/{} with {}", span.name, span.micro, span.chunk, span.bucket, span.peer);
}

TEST(Tracer, APipelineNotesEveryActionOnceAndAMessageArrivesAfterItWasSent) {
  const StageMap once(positions), twice(positions, 2), back(positions, 2, StageOrder::there_and_back);
  const std::vector<std::pair<StageMap, Schedule>> all = {{once, gpipe(once, micros)},
                                                          {once, one_f_one_b(once, micros)},
                                                          {twice, interleaved(twice, micros)},
                                                          {once, zero_bubble_h1(once, micros)},
                                                          {back, zero_bubble_v(back, micros)}};
  for (const auto& [map, plain] : all) {
    const Schedule schedule = lowered(plain, map);
    run_ranks(positions, [&](Communicator& pipeline) {
      const auto position = static_cast<size_t>(pipeline.rank());
      const std::vector<Action>& program = schedule.programs[position];
      SmallStage stage(slots_of(schedule, map)[position]);
      Tracer tracer(host_clock().now_s, SpanTimes::happened, program.size());
      Pipeline player(program, &pipeline);
      player.set_tracer(&tracer);
      player.run(stage);
      EXPECT_TRUE(tracer.spans().empty()) << "not on yet";

      tracer.begin(1);
      player.run(stage);
      tracer.end();
      // 1. Every action once; a reduction is not the pipeline's to tell.
      std::map<std::string, int> times;
      for (const Action& action : program) {
        if (action.kind == ActionKind::reduce) continue;
        ++times[name_of(Span{.name = name_of(action.kind),
                             .chunk = action.chunk,
                             .micro = action.micro,
                             .bucket = action.bucket,
                             .peer = action.peer})];
      }
      for (const Span& span : tracer.spans()) --times[name_of(span)];
      for (const auto& [name, count] : times) EXPECT_EQ(count, 0) << name;
      EXPECT_EQ(tracer.dropped(), 0);
      // 2. Computes one after the other; micro by micro when it was sent and when it had come.
      double computed_until_s = 0;
      constexpr size_t activations = 0, gradients = 1;
      const auto stages = static_cast<size_t>(map.stages());
      std::vector<double> sent_s(2 * stages * micros), received_s(2 * stages * micros);
      const auto place = [&](size_t lane, size_t stage, size_t micro) {
        return (lane * stages + stage) * micros + micro;
      };
      for (const Span& span : tracer.spans()) {
        EXPECT_LE(span.begin_s, span.end_s);
        if (span.category == SpanCategory::compute) {
          EXPECT_GE(span.begin_s, computed_until_s) << name_of(span);
          computed_until_s = span.end_s;
        }
        const size_t index = place(span.name.ends_with("activation") ? activations : gradients,
                                   static_cast<size_t>(map.stage_of(pipeline.rank(), span.chunk)),
                                   static_cast<size_t>(span.micro));
        if (span.name.starts_with("send")) sent_s[index] = span.begin_s;
        if (span.name.starts_with("receive")) received_s[index] = span.end_s;
      }
      // 3. Across ranks: the clocks of one host are one. What was handed over has no times.
      for (std::vector<double>* times_s : {&sent_s, &received_s})
        pipeline.all_reduce(Tensor(times_s->data(), {std::ssize(*times_s)}, DType::f64));
      for (size_t stage = 1; stage < stages; ++stage) {
        for (size_t micro = 0; micro < micros; ++micro) {
          EXPECT_GE(received_s[place(activations, stage, micro)],
                    sent_s[place(activations, stage - 1, micro)]);
          EXPECT_GE(received_s[place(gradients, stage - 1, micro)], sent_s[place(gradients, stage, micro)]);
        }
      }
    });
  }
}

TEST(Tracer, OnADeviceNoTransferIsAskedWhetherItIsDone) {
  // To ask would make the device's stream wait. So a send ends where the pipeline waits for it: here all of
  // them behind the last compute.
  const StageMap map(2);
  Schedule schedule = with_slots(with_transfers(gpipe(map, 3), map), map);
  run_ranks(2, [&](Communicator& pipeline) {
    const auto position = static_cast<size_t>(pipeline.rank());
    SmallStage stage(slots_of(schedule, map)[position]);
    Tracer tracer(host_clock().now_s, SpanTimes::enqueued, 100);
    Pipeline player(schedule.programs[position], &pipeline);
    player.set_tracer(&tracer);
    tracer.begin(1);
    EXPECT_FALSE(tracer.sees_transfers());
    player.run(stage);
    bool has_sent = false;
    for (const Span& span : tracer.spans()) {
      has_sent |= span.name.starts_with("send");
      EXPECT_FALSE(has_sent && span.category == SpanCategory::compute) << name_of(span);
    }
    EXPECT_TRUE(has_sent);
  });
}

TEST(Tracer, AStartedCollectiveIsNotedOnceItIsSeenToBeDoneAndNotBefore) {
  run_ranks(2, [](Communicator& world) {
    Tracer tracer(counting_clock(), SpanTimes::happened, 10);
    std::array<float, 4> whole{1, 2, 3, 4};
    std::array<float, 2> part{};
    const Tensor from(whole.data(), {4}, DType::f32), to(part.data(), {2}, DType::f32);
    int go = 0;
    const Tensor message(&go, {1}, DType::i32);
    tracer.begin(1);
    // Rank 1 starts its own only after rank 0 has looked: then it cannot be done yet.
    if (world.rank() == 1) world.irecv(message, 0, Lane::control).wait();
    WatchedTransfer sum(world.start_reduce_scatter(from, to), &tracer, nullptr, "reduce", 3);
    if (world.rank() == 0) {
      sum.look();
      EXPECT_TRUE(tracer.spans().empty());
      world.isend(message, 1, Lane::control).wait();
      while (tracer.spans().empty()) sum.look();  // and then it is, without a wait
    }
    sum.wait();
    sum.wait();
    sum.look();
    ASSERT_EQ(tracer.spans().size(), 1u) << "noted once";
    const Span& span = tracer.spans()[0];
    EXPECT_EQ(span.name, "reduce");
    EXPECT_EQ(span.category, SpanCategory::collective);
    EXPECT_EQ(span.bucket, 3);
    EXPECT_LT(span.begin_s, span.end_s);
  });
}

TEST(Tracer, ACollectiveFromBeforeTheStepBelongsToTheStepThatItEndsIn) {
  run_ranks(2, [](Communicator& world) {
    Tracer tracer(counting_clock(), SpanTimes::happened, 10);
    std::array<float, 2> part{}, whole{};
    WatchedTransfer gather(
        world.start_all_gather(Tensor(part.data(), {1}, DType::f32), Tensor(whole.data(), {2}, DType::f32)),
        &tracer, nullptr, "gather", 0);
    tracer.begin(5);
    const double begun_s = tracer.now_s();
    gather.wait();
    ASSERT_EQ(tracer.spans().size(), 1u);
    EXPECT_EQ(tracer.spans()[0].step, 5);
    EXPECT_LT(tracer.spans()[0].begin_s, begun_s);
    // On a device nobody asks.
    Tracer device(counting_clock(), SpanTimes::enqueued, 10);
    device.begin(1);
    WatchedTransfer enqueued(
        world.start_all_gather(Tensor(part.data(), {1}, DType::f32), Tensor(whole.data(), {2}, DType::f32)),
        &device, nullptr, "gather", 0);
    world.barrier();
    world.barrier();
    enqueued.look();
    EXPECT_TRUE(device.spans().empty());
    enqueued.wait();
    EXPECT_EQ(device.spans().size(), 1u);
    // Nobody to tell.
    WatchedTransfer untold(Transfer(), nullptr, nullptr, "gather", 0);
    untold.look();
    untold.wait();
  });
}

}  // namespace
}  // namespace ptrain
