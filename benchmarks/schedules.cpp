// What do the schedules cost? First on paper for 4 to 64 positions: bubble, step and what is alive. Then
// played with stages that sleep (in slices, polling in between, as compute would between ops) and messages
// above a megabyte, and compared with the simulator fed with the measured costs. Ranks are threads, or those
// of mpirun:
//   build/benchmarks/bench_schedules [milliseconds of a forward, default 40] [turns, default 3]
//   mpirun -np 8 --oversubscribe --bind-to none build/benchmarks/bench_schedules
// Every case is played several times; the shortest step counts, since other work on the machine only adds.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/comm/session.h"
#include "parallel/comm/thread_comm.h"
#include "parallel/run/pipeline.h"

namespace ptrain {
namespace {

using Clock = std::chrono::steady_clock;

struct Kind {
  const char* name;
  int chunks;
  StageOrder order;
  Schedule (*make)(const StageMap&, int micros);

  StageMap map(int positions) const { return StageMap(positions, chunks, order); }
  Schedule lowered(const StageMap& stages, int micros) const {
    return with_early_receives(with_slots(with_transfers(make(stages, micros), stages), stages));
  }
};

constexpr Kind kinds[] = {
    {"gpipe", 1, StageOrder::round, gpipe},
    {"1f1b", 1, StageOrder::round, one_f_one_b},
    {"interleaved 2", 2, StageOrder::round, interleaved},
    {"interleaved 4", 4, StageOrder::round, interleaved},
    {"zero bubble H1", 1, StageOrder::round, zero_bubble_h1},
    {"zero bubble V", 2, StageOrder::there_and_back, zero_bubble_v},
};

/// The most activations that a rank has room for, in those of a rank's whole share of the layers.
double peak_live(const Report& report, int chunks) {
  double most = 0;
  for (const std::vector<int>& position : report.peak_live) {
    double sum = 0;
    for (int live : position) sum += live;
    most = std::max(most, sum / chunks);
  }
  return most;
}

/// A rank's share of a forward costs forward_s, its halves of the backward as much each.
struct Times {
  double forward_s = 0;
  double slow_last = 1;  // factor on the last stage

  double of_stage(const StageMap& map, int stage) const {
    return forward_s / map.chunks() * (map.is_last(stage) ? slow_last : 1);
  }
};

constexpr int64_t elements = 300'000;  // of a message: 1.2 MB

void sleep_and_poll(Communicator& pipeline, double seconds) {
  const auto end = Clock::now() + std::chrono::nanoseconds(std::llround(1e9 * seconds));
  while (Clock::now() < end) {
    const auto slice = std::min<Clock::duration>(std::chrono::microseconds(300), end - Clock::now());
    if (slice.count() > 0) std::this_thread::sleep_for(slice);
    pipeline.poll();
  }
}

/// Seconds of one message whose sender goes on working: it runs along all ranks, each waits for it.
double measure_transfer(Communicator& pipeline) {
  std::vector<float> message(elements);
  const Tensor tensor(message.data(), {elements}, DType::f32);
  const int rank = pipeline.rank(), last = pipeline.size() - 1;
  std::vector<double> seconds;
  for (int turn = 0; turn < 9; ++turn) {
    pipeline.barrier();
    const auto begin = Clock::now();
    if (rank > 0) pipeline.irecv(tensor, rank - 1, Lane::activation).wait();
    double took_s = rank == last ? std::chrono::duration<double>(Clock::now() - begin).count() : 0;
    if (rank < last) {
      Transfer send = pipeline.isend(tensor, rank + 1, Lane::activation);
      sleep_and_poll(pipeline, 2e-3);
      send.wait();
    }
    pipeline.all_reduce(Tensor(&took_s, {1}, DType::f64), Reduce::max);
    seconds.push_back(took_s / last);
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

/// Sleeps for the costs of its stages and moves a bundle of one tensor.
class SleptStages : public StageWork {
 public:
  SleptStages(Communicator& pipeline, const StageMap& map, const Times& times, const std::vector<int>& slots)
      : pipeline_(pipeline), map_(map), times_(times) {
    for (int count : slots)
      buffers_.emplace_back(static_cast<size_t>(count), std::vector(3, std::vector<float>(elements)));
  }

  void forward(const Action& action) override { sleep(action, 1); }
  void backward(const Action& action) override { sleep(action, action.kind == ActionKind::backward ? 2 : 1); }
  void hand(const Action& action) override {
    const bool is_activation = action.kind == ActionKind::hand_activation;
    buffer(action.to_chunk, action.to_slot, is_activation ? 0 : 2) =
        buffer(action.chunk, action.slot, is_activation ? 1 : 2);
  }
  void reduce(const Action&) override {}
  std::span<const Tensor> tensors(const Action& action) override {
    const size_t which = action.kind == ActionKind::receive_activation ? 0
                         : action.kind == ActionKind::send_activation  ? 1
                                                                       : 2;
    tensor_ = Tensor(buffer(action.chunk, action.slot, which).data(), {elements}, DType::f32);
    return {&tensor_, 1};
  }

 private:
  std::vector<float>& buffer(int chunk, int slot, size_t which) {
    return buffers_[static_cast<size_t>(chunk)][static_cast<size_t>(slot)][which];
  }

  void sleep(const Action& action, double forwards) {
    const int stage = map_.stage_of(pipeline_.rank(), action.chunk);
    sleep_and_poll(pipeline_, forwards * times_.of_stage(map_, stage));
  }

  Communicator& pipeline_;
  const StageMap& map_;
  Times times_;
  std::vector<std::vector<std::vector<std::vector<float>>>>
      buffers_;  // [chunk][slot][input, output, gradient]
  Tensor tensor_;
};

struct Case {
  Kind kind;
  int positions, micros;
  double slow_last = 1;
};

struct Measured {
  Costs costs;        // means over the micro-batches; of a transfer the median
  double step_s = 0;  // of the slowest rank, from a common start
  double bubble = 0;
};

/// What the intervals of the ranks' actions say of their stages. Sets all but the transfers.
Costs costs_of(Communicator& pipeline, const Pipeline& player, const StageMap& map, int micros) {
  const auto stages = static_cast<size_t>(map.stages());
  std::vector<double> forwards_s(stages), inputs_s(stages), weights_s(stages), hands(2);  // seconds, number
  for (size_t i = 0; i < player.program().size(); ++i) {
    const Action& action = player.program()[i];
    const double length_s = player.intervals()[i].end_s - player.intervals()[i].begin_s;
    const auto stage = static_cast<size_t>(map.stage_of(pipeline.rank(), action.chunk));
    if (is_forward(action.kind)) forwards_s[stage] += length_s / micros;
    if (is_backward(action.kind)) {
      (action.kind == ActionKind::backward_weights ? weights_s : inputs_s)[stage] += length_s / micros;
    }
    if (!is_hand(action.kind)) continue;
    hands[0] += length_s;
    hands[1] += 1;
  }
  for (std::vector<double>* sums : {&forwards_s, &inputs_s, &weights_s, &hands})
    pipeline.all_reduce(Tensor(sums->data(), {static_cast<int64_t>(sums->size())}, DType::f64));
  Costs costs{.forward_s = forwards_s};
  for (size_t stage = 0; stage < stages; ++stage) {
    costs.backward_s.push_back(inputs_s[stage] + weights_s[stage]);
    costs.input_share.push_back(inputs_s[stage] / costs.backward_s[stage]);
  }
  costs.hand_s = hands[1] > 0 ? hands[0] / hands[1] : 0;
  return costs;
}

/// One rank's part: plays its program; every rank ends with the measurements of all.
Measured measure(Communicator& pipeline, const Case& what, const Schedule& schedule, double forward_s) {
  const StageMap map = what.kind.map(what.positions);
  const auto position = static_cast<size_t>(pipeline.rank());
  SleptStages stages(pipeline, map, {forward_s, what.slow_last}, slots_of(schedule, map)[position]);
  Pipeline player(schedule.programs[position], &pipeline);
  pipeline.barrier();
  const auto begin = Clock::now();
  player.run(stages);
  double step_s = std::chrono::duration<double>(Clock::now() - begin).count();
  pipeline.all_reduce(Tensor(&step_s, {1}, DType::f64), Reduce::max);

  Measured measured{.costs = costs_of(pipeline, player, map, what.micros), .step_s = step_s};
  measured.costs.activation_s = measured.costs.gradient_s = measure_transfer(pipeline);
  double busy_s = 0;
  for (size_t stage = 0; stage < static_cast<size_t>(map.stages()); ++stage)
    busy_s += what.micros * (measured.costs.forward_s[stage] + measured.costs.backward_s[stage]);
  measured.bubble = 1 - busy_s / (step_s * map.positions());
  return measured;
}

/// Over threads, or over the first ranks of the world where mpirun started several. Rank 0 has the answer.
Measured measure_anywhere(Communicator& world, const Case& what, const Schedule& schedule, double forward_s) {
  Measured measured;
  if (world.size() > 1) {
    const auto group = world.split(world.rank() < what.positions ? 0 : -1, world.rank());
    if (group) measured = measure(*group, what, schedule, forward_s);
  } else {
    run_thread_ranks(what.positions, [&](Communicator& pipeline) {
      const Measured mine = measure(pipeline, what, schedule, forward_s);
      if (pipeline.rank() == 0) measured = mine;
    });
  }
  return measured;
}

/// Forward, input and weights of one length, transfers free; 2 and 8 micro-batches a position.
void simulate_all() {
  fmt::print(
      "simulated: forward = input = weights = 1 for a rank's whole share of the layers, transfers free\n");
  fmt::print("{:<16} {:>9} {:>7} {:>9} {:>10} {:>10}\n", "schedule", "positions", "micros", "bubble",
             "peak live", "step");
  for (int positions : {4, 8, 16, 32, 64}) {
    for (int micros : {2 * positions, 8 * positions}) {
      for (const Kind& kind : kinds) {
        const StageMap map = kind.map(positions);
        const Report report = simulate(kind.lowered(map, micros), map,
                                       Costs::uniform(map, 1.0 / kind.chunks, 2.0 / kind.chunks));
        fmt::print("{:<16} {:>9} {:>7} {:>7.1f} % {:>10.1f} {:>10.1f}\n", kind.name, positions, micros,
                   100 * report.bubble, peak_live(report, kind.chunks), report.step_s);
      }
    }
  }
}

std::vector<Case> cases_of() {
  std::vector<Case> cases;
  for (int positions : {2, 4, 8}) {
    for (const Kind& kind : kinds) cases.push_back({kind, positions, 2 * positions});
  }
  for (const Kind& kind : kinds) cases.push_back({kind, 4, 7, 1.5});
  return cases;
}

void measure_all(Communicator& world, double forward_s, int turns) {
  const bool speaks = world.rank() == 0;
  if (speaks) {
    fmt::print(
        "\nmeasured: slept stages over {}, forward = input = weights = {:.1f} ms, messages of 1.2 MB, best "
        "of {}\n",
        world.size() > 1 ? "MPI" : "threads", 1e3 * forward_s, turns);
    fmt::print("{:<16} {:>9} {:>7} {:>10} {:>9} {:>10} {:>10} {:>11} {:>10} {:>11} {:>8}\n", "schedule",
               "positions", "micros", "slow last", "transfer", "simulated", "measured", "difference",
               "peak live", "step", "of 1f1b");
  }
  double worst = 0, one_f_one_b_bubble = 0;
  for (const Case& what : cases_of()) {
    if (world.size() > 1 && world.size() < what.positions) continue;
    const StageMap map = what.kind.map(what.positions);
    const Schedule schedule = what.kind.lowered(map, what.micros);
    Measured best;
    for (int turn = 0; turn < turns; ++turn) {
      const Measured measured = measure_anywhere(world, what, schedule, forward_s);
      if (turn == 0 || measured.step_s < best.step_s) best = measured;
    }
    if (!speaks) continue;
    const Report report = simulate(schedule, map, best.costs);
    const double difference = 100 * (best.bubble - report.bubble);
    worst = std::max(worst, std::abs(difference));
    if (what.kind.make == one_f_one_b) one_f_one_b_bubble = best.bubble;
    const std::string ratio =
        one_f_one_b_bubble > 0 ? fmt::format("{:.2f}", best.bubble / one_f_one_b_bubble) : "-";
    fmt::print(
        "{:<16} {:>9} {:>7} {:>9.1f}x {:>6.2f} ms {:>8.1f} % {:>8.1f} % {:>7.1f} pts {:>10.1f} {:>8.1f} ms "
        "{:>8}\n",
        what.kind.name, what.positions, what.micros, what.slow_last, 1e3 * best.costs.activation_s,
        100 * report.bubble, 100 * best.bubble, difference, peak_live(report, what.kind.chunks),
        1e3 * best.step_s, what.kind.make == gpipe ? "-" : ratio);
  }
  if (speaks)
    fmt::print("largest difference between measured and simulated: {:.1f} points (goal: 3)\n", worst);
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  using namespace ptrain;
  const double forward_ms = argc > 1 ? std::atof(argv[1]) : 40;
  const int turns = argc > 2 ? std::atoi(argv[2]) : 3;
  if (!(forward_ms > 0) || turns < 1) {
    fmt::print(stderr, "a forward of {} ms, {} turns; give two numbers above 0\n", forward_ms, turns);
    return static_cast<int>(ExitCode::usage);
  }
  Session session(find_launcher([](const char* name) { return std::getenv(name); }));
  return session.run([&] {
    if (session.world().rank() == 0) simulate_all();
    measure_all(session.world(), forward_ms / 1e3, turns);
    return 0;
  });
}
