// The trace of a run: every action of every rank, on one clock, with the overlap that there is.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/run/param_sync.h"
#include "src/io/json.h"
#include "src/train/metrics.h"
#include "src/train/trace.h"
#include "src/train/trace_read.h"
#include "tests/support/curve.h"
#include "tests/support/forwarding_comm.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

const CurveCase& golden() {
  static const CurveCase made("llama-gqa-tied");
  return made;
}

struct Event {
  std::string name, category;
  int rank = 0, chunk = -1, micro = -1, bucket = -1, peer = -1;
  int64_t step = 0;
  double begin_us = 0, end_us = 0;
  int lane = 0;
};

std::vector<Event> events_of(const std::filesystem::path& path) {
  std::vector<Event> events;
  for (const Json& event : read_json(path)) {
    if (event["ph"] == "M") continue;
    EXPECT_EQ(event["ph"], "X") << event.dump();
    const Json& about = event["args"];
    events.push_back({.name = event["name"],
                      .category = event["cat"],
                      .rank = event["pid"],
                      .chunk = about.value("chunk", -1),
                      .micro = about.value("micro", -1),
                      .bucket = about.value("bucket", -1),
                      .peer = about.value("peer", -1),
                      .step = about["step"],
                      .begin_us = event["ts"],
                      .end_us = event["ts"].get<double>() + event["dur"].get<double>(),
                      .lane = event["tid"]});
  }
  return events;
}

using Key = std::tuple<int64_t, int, std::string, int, int, int,
                       int>;  // step, rank, name, chunk, micro, bucket, peer

Key key_of(const Event& event) {
  return {event.step, event.rank, event.name, event.chunk, event.micro, event.bucket, event.peer};
}

/// Trains `steps` steps on `grid` over `world` and traces those that `is_traced` names, as a run does. The
/// file is rank 0's to read.
template <class IsTraced>
std::vector<StepResult> train_traced(Communicator& world, const Grid& grid, int64_t steps,
                                     const std::filesystem::path& file, const IsTraced& is_traced) {
  const Batches batches(
      *golden().source, {.sequence_length = golden().sequence_length, .packing = RowPacking::off},
      {.micro = grid.micro, .global = golden().global, .data = grid.data}, {.shuffle = Shuffle::off});
  const Plan plan = plan_on(golden(), grid).value();
  RunTrace trace(world, file,
                 {.rank = world.rank(), .at = plan.mesh.coordinate_of(world.rank()), .host = "here"},
                 host_clock(), SpanTimes::happened, 10'000);
  Trainer trainer(golden().spec, golden().optimizer, plan, world, {});
  load_golden_weights(golden().weights, trainer);
  trainer.set_tracer(&trace.tracer());
  std::vector<StepResult> results;
  for (int64_t step = 1; step <= steps; ++step) {
    if (is_traced(step)) trace.tracer().begin(step);
    results.push_back(trainer.step(batches, step, golden().steps));
    trace.write();
  }
  trace.close();
  world.barrier();
  return results;
}

class TracedGrid : public testing::TestWithParam<Grid> {};

TEST_P(TracedGrid, HoldsEveryActionOfEveryRankOnce) {
  const Grid grid = GetParam();
  const Plan plan = plan_on(golden(), grid).value();
  const TemporaryDirectory directory;  // of each process; rank 0's is written
  const auto file = directory.path() / "trace.json";
  run_ranks(grid.world(), [&](Communicator& world) {
    const std::vector<StepResult> traced =
        train_traced(world, grid, 3, file, [](int64_t step) { return step != 2; });
    // To be watched changes no bit.
    const std::vector<StepResult> plain = train_on(golden(), grid, world, 3);
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_EQ(traced[i].loss, plain[i].loss);
      EXPECT_EQ(traced[i].grad_norm, plain[i].grad_norm);
    }
    if (world.rank() != 0) return;
    const std::vector<Event> events = events_of(file);
    // 1. Every action of the traced steps once, and no other one.
    std::map<Key, int> times;
    for (int64_t step : {1, 3}) {
      for (int rank = 0; rank < grid.world(); ++rank) {
        const FlatLayout layout = flat_layout_of(plan, rank);
        for (const Action& action : plan.program(rank)) {
          const int bucket = action.kind == ActionKind::reduce ? layout.bucket_of(action.chunk, action.bucket)
                                                               : action.bucket;
          const int chunk = action.kind == ActionKind::reduce ? -1 : action.chunk;
          ++times[{step, rank, std::string(name_of(action.kind)), chunk, action.micro, bucket, action.peer}];
        }
      }
    }
    std::map<Key, int> sums;  // that no action stands for: a unit's, in each micro-batch
    for (const Event& event : events) {
      if (event.category == "phase" || event.category == "tensor" || event.name == "gather") continue;
      if (event.name == "reduce" && plan.has_unit_gradients()) {
        ++sums[key_of(event)];
      } else {
        --times[key_of(event)];
      }
    }
    for (const auto& [key, count] : sums) EXPECT_EQ(count, plan.micros);
    EXPECT_NE(sums.empty(), plan.has_unit_gradients());
    for (const auto& [key, count] : times) {
      EXPECT_EQ(count, 0) << fmt::format("step {} rank {} {} {}'{}/{} with {}", std::get<0>(key),
                                         std::get<1>(key), std::get<2>(key), std::get<4>(key),
                                         std::get<3>(key), std::get<5>(key), std::get<6>(key));
    }
    // 2. Bars of a lane do not overlap, but phases lie inside their step. 0.002 us: the file has nanoseconds.
    std::map<std::pair<int, int>, double> until_us;
    for (const Event& event : events) {
      EXPECT_LE(event.begin_us, event.end_us) << event.name;
      if (event.name == "step") continue;
      double& until = until_us[{event.rank, event.lane}];
      EXPECT_GE(event.begin_us, until - 0.002)
          << event.name << " of rank " << event.rank << " lane " << event.lane;
      until = event.end_us;
    }
    // 3. A message arrives after it was sent: ranks of one host have one clock.
    int received_messages = 0, pairs = 0;
    for (const Event& received : events) {
      if (!received.name.starts_with("receive ")) continue;
      ++received_messages;
      for (const Event& sent : events) {
        const Coordinate from = plan.mesh.coordinate_of(sent.rank),
                         to = plan.mesh.coordinate_of(received.rank);
        const int stages = received.name.ends_with("activation") ? 1 : -1;
        const bool is_pair = sent.name == "send " + received.name.substr(8) && sent.step == received.step &&
                             sent.micro == received.micro && from.data == to.data &&
                             from.tensor == to.tensor &&
                             plan.map.stage_of(from.pipeline, sent.chunk) + stages ==
                                 plan.map.stage_of(to.pipeline, received.chunk);
        if (is_pair) {
          EXPECT_GE(received.end_us, sent.begin_us);
          ++pairs;
        }
      }
    }
    EXPECT_EQ(pairs, received_messages);
    EXPECT_EQ(received_messages > 0, grid.pipeline > 1);
    // 4. And the step can be laid beside the plan.
    EXPECT_EQ(read_traced_step(file, plan, {}).step, 3);
    EXPECT_EQ(read_traced_step(file, plan, 1).step, 1);
  });
}

std::string name_of_grid(const testing::TestParamInfo<Grid>& grid) {
  std::string name = to_string(grid.param);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Grids, TracedGrid,
    testing::Values(Grid{1, 2, 2, 1}, Grid{1, 1, 1, 1}, Grid{2, 2, 1, 1}, Grid{1, 1, 3, 1, false, 0},
                    Grid{1, 2, 1, 2, false, 1, ScheduleName::gpipe},
                    Grid{1, 2, 1, 1, false, 1, ScheduleName::interleaved, 2}, Grid{1, 2, 2, 1, false, 2},
                    Grid{1, 2, 2, 1, false, 1, ScheduleName::zero_bubble}, Grid{1, 2, 2, 1, false, 3},
                    Grid{1, 2, 2, 1, false, 1, ScheduleName::zero_bubble, 2}),
    name_of_grid);

/// Holds data rank 1's first sum of a step back until data rank 0 has started its second: that one has then
/// computed a whole backward segment while the first sum was under way.
class HoldingCommunicator final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;

  std::unique_ptr<Communicator> split(int color, int key) override {
    std::unique_ptr<Communicator> part = inner().split(color, key);
    return part != nullptr ? std::make_unique<HoldingCommunicator>(std::move(part)) : nullptr;
  }
  Transfer start_reduce_scatter(Tensor whole, Tensor part, SumOrder order) override {
    ++started_;
    int32_t go = 0;
    const Tensor message(&go, {1}, DType::i32);
    if (rank() == 1 && started_ == 1) inner().irecv(message, 0, Lane::control).wait();
    if (rank() == 0 && started_ == 2) inner().isend(message, 1, Lane::control).wait();
    return inner().start_reduce_scatter(whole, part, order);
  }

 private:
  int started_ = 0;
};

TEST(RunTrace, ShowsASumThatIsUnderWayWhileTheNextBackwardIsComputed) {
  const Grid grid{1, 2, 2, 1};
  const TemporaryDirectory directory;
  const auto file = directory.path() / "trace.json";
  run_ranks(grid.world(), [&](Communicator& world) {
    HoldingCommunicator holding(world);
    train_traced(holding, grid, 1, file, [](int64_t) { return true; });
    if (world.rank() != 0) return;
    const Plan plan = plan_on(golden(), grid).value();
    const std::vector<Event> events = events_of(file);
    for (int rank = 0; rank < grid.world(); ++rank) {
      if (plan.mesh.coordinate_of(rank).data != 0) continue;
      const auto find = [&](const char* name, int bucket) {
        for (const Event& event : events) {
          if (event.rank == rank && event.name == name && event.bucket == bucket) return event;
        }
        ADD_FAILURE() << "rank " << rank << " has no " << name << " of bucket " << bucket;
        return Event{};
      };
      const Event sum = find("reduce", 0), backward = find("backward", 1);
      EXPECT_LT(sum.begin_us, backward.begin_us);
      EXPECT_GT(sum.end_us, backward.end_us) << "rank " << rank;
    }
  });
}

/// Holds data rank 1's second gather back until data rank 0 says go.
class HoldingGathers final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;

  Transfer start_all_gather(Tensor part, Tensor whole) override {
    if (rank() == 1 && ++started_ == 2) inner().irecv(message(), 0, Lane::control).wait();
    return inner().start_all_gather(part, whole);
  }
  void go() { inner().isend(message(), 1, Lane::control).wait(); }

 private:
  Tensor message() { return Tensor(&go_, {1}, DType::i32); }

  int started_ = 0;
  int32_t go_ = 0;
};

TEST(RunTrace, ShowsParametersThatComeWhileTheFirstUnitsAreComputed) {
  const Plan plan = plan_on(golden(), {1, 1, 2, 1}).value();
  run_ranks(2, [&](Communicator& world) {
    const FlatLayout layout = flat_layout_of(plan, world.rank());
    ASSERT_GE(layout.buckets.size(), 2u);
    std::vector<float> memory(static_cast<size_t>(layout.elements), static_cast<float>(world.rank()));
    const FlatMemory flat(Tensor(memory.data(), {layout.elements}, DType::f32));
    HoldingGathers data(world);
    ParamSync sync(plan, layout, world.rank(), &data);
    sync.bind(flat, flat);
    Tracer tracer(host_clock().now_s, SpanTimes::happened, 100);
    sync.set_tracer(&tracer);
    tracer.begin(1);
    sync.start();
    const std::vector<int> order = exchange_order(layout);
    const auto first_unit = [&](size_t place) {
      return layout.buckets[static_cast<size_t>(order[place])].units.begin;
    };
    sync.need(first_unit(0), -1);
    if (world.rank() == 0) {
      const double begin_s = tracer.now_s();
      sync.look();
      tracer.note({.kind = ActionKind::forward, .micro = 0}, begin_s, tracer.now_s());
      data.go();
    }
    sync.need(first_unit(1), -1);
    sync.finish();
    // The step's parameters are there: those of the other rank too.
    for (const FlatBucket& bucket : layout.buckets) {
      EXPECT_EQ(memory[static_cast<size_t>(bucket.elements.begin)], 0);
      EXPECT_EQ(memory[static_cast<size_t>(bucket.elements.end() - 1)], 1);
    }
    if (world.rank() != 0) return;
    const auto find = [&](std::string_view name, int bucket) {
      const auto found = std::ranges::find_if(
          tracer.spans(), [&](const Span& span) { return span.name == name && span.bucket == bucket; });
      EXPECT_NE(found, tracer.spans().end()) << name << " " << bucket;
      return *found;
    };
    const Span first = find("gather", order[0]), second = find("gather", order[1]),
               forward = find("forward", -1);
    EXPECT_LE(first.end_s, forward.begin_s) << "what is read must have come";
    EXPECT_LT(second.begin_s, forward.begin_s);
    EXPECT_GT(second.end_s, forward.end_s);
  });
}

/// Says that each sum over the world has kept the rank waiting for a quarter of a second more.
class SleepyCommunicator final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  void all_reduce(Tensor inout, Reduce reduce, SumOrder order) override {
    waited_s_ += 0.25;
    inner().all_reduce(inout, reduce, order);
  }
  double waited_s() const override { return waited_s_; }

 private:
  double waited_s_ = 0;
};

TEST(ExposedCommunication, IsTheShareOfTheStepThatARankWaited) {
  const Grid grid{1, 2, 1, 1};
  run_ranks(grid.world(), [&](Communicator& world) {
    SleepyCommunicator sleepy(world);
    const std::vector<StepResult> results = train_on(golden(), grid, sleepy, 2);
    double told_s = 0;
    for (const StepResult& result : results) told_s += result.exposed_communication * result.step_s;
    EXPECT_GT(told_s, 0);
    // Set-up waits too, outside of any step: so at most all of it, in whole quarters of a second.
    EXPECT_LE(told_s, sleepy.waited_s() + 1e-9);
    EXPECT_NEAR(told_s, 0.25 * std::round(told_s / 0.25), 1e-9);
  });
}

TEST(ExposedCommunication, OfARunIsTheMeanOverItsRanks) {
  for (const int ranks : world_sizes({1, 2, 3})) {
    run_ranks(ranks, [&](Communicator& world) {
      EXPECT_DOUBLE_EQ(mean_over(world, world.rank() / 8.0), (world.size() - 1) / 16.0);
      EXPECT_TRUE(std::isnan(mean_over(world, std::nan("")))) << "GPUs cannot tell";
    });
  }
}

}  // namespace
}  // namespace ptrain
