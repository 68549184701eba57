// Does a pipeline take the time that the simulator says? Plays schedules with stages that sleep (in slices,
// polling in between, as compute would between ops) and messages above a megabyte; then compares the measured
// bubble with the simulator fed with the measured costs. Ranks are threads, or those of mpirun:
//   build/benchmarks/bench_schedules [milliseconds of a forward, default 10]
//   mpirun -np 8 --oversubscribe --bind-to none build/benchmarks/bench_schedules
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

/// Sleeps for the costs of its stage and moves a bundle of one tensor.
class SleptStage : public StageWork {
 public:
  SleptStage(Communicator& pipeline, double forward_s, double backward_s, int slots)
      : pipeline_(pipeline), forward_s_(forward_s), backward_s_(backward_s) {
    for (int slot = 0; slot < slots; ++slot) buffers_.emplace_back(3, std::vector<float>(elements));
  }

  void forward(const Action&) override { sleep(forward_s_); }
  void backward(const Action&) override { sleep(backward_s_); }
  void hand(const Action&) override {}
  void reduce(const Action&) override {}
  void add_tied(const Action&) override {}
  std::span<const Tensor> tensors(const Action& action) override {
    const size_t which = action.kind == ActionKind::receive_activation ? 0
                         : action.kind == ActionKind::send_activation  ? 1
                                                                       : 2;
    std::vector<float>& buffer = buffers_[static_cast<size_t>(action.slot)][which];
    tensor_ = Tensor(buffer.data(), {elements}, DType::f32);
    return {&tensor_, 1};
  }

 private:
  static constexpr int64_t elements = 300'000;  // 1.2 MB

  void sleep(double seconds) {
    const auto end = Clock::now() + std::chrono::nanoseconds(std::llround(1e9 * seconds));
    while (Clock::now() < end) {
      const auto slice = std::min<Clock::duration>(std::chrono::microseconds(300), end - Clock::now());
      if (slice.count() > 0) std::this_thread::sleep_for(slice);
      pipeline_.poll();
    }
  }

  Communicator& pipeline_;
  double forward_s_, backward_s_;
  std::vector<std::vector<std::vector<float>>> buffers_;  // [slot][input, output, gradient]
  Tensor tensor_;
};

struct Case {
  std::string schedule;
  int positions, micros;
  double slow_stage = 1;  // factor on the last stage's costs
};

struct Measured {
  Costs costs;        // the mean forward and backward of every stage
  double step_s = 0;  // of the slowest rank, from a common start
  double bubble = 0;
};

Schedule lowered(const Case& what, const StageMap& map) {
  const Schedule plain = what.schedule == "gpipe" ? gpipe(map, what.micros) : one_f_one_b(map, what.micros);
  return with_early_receives(with_slots(with_transfers(plain, map), map));
}

/// One rank's part: plays its program once; every rank ends with the measurements of all.
Measured measure(Communicator& pipeline, const Case& what, const Schedule& schedule, double forward_s) {
  const StageMap map(what.positions);
  const auto position = static_cast<size_t>(pipeline.rank());
  const double factor = pipeline.rank() + 1 == map.positions() ? what.slow_stage : 1;
  const int slots = slots_of(schedule, map)[position][0];
  SleptStage stage(pipeline, factor * forward_s, factor * 2 * forward_s, slots);
  Pipeline player(schedule.programs[position], &pipeline);
  pipeline.barrier();
  const auto begin = Clock::now();
  player.run(stage);
  double step_s = std::chrono::duration<double>(Clock::now() - begin).count();

  Measured measured{.costs = Costs::uniform(map, 0, 0)};
  for (size_t i = 0; i < player.program().size(); ++i) {
    const Action& action = player.program()[i];
    if (!is_compute(action.kind)) continue;
    auto& cost_s = is_forward(action.kind) ? measured.costs.forward_s : measured.costs.backward_s;
    cost_s[position] += (player.intervals()[i].end_s - player.intervals()[i].begin_s) / what.micros;
  }
  for (std::vector<double>* costs_s : {&measured.costs.forward_s, &measured.costs.backward_s}) {
    pipeline.all_reduce(Tensor(costs_s->data(), {map.positions()}, DType::f64));
  }
  pipeline.all_reduce(Tensor(&step_s, {1}, DType::f64), Reduce::max);
  double busy_s = 0;
  for (int i = 0; i < map.positions(); ++i) {
    const auto stage_index = static_cast<size_t>(i);
    busy_s += what.micros * (measured.costs.forward_s[stage_index] + measured.costs.backward_s[stage_index]);
  }
  measured.step_s = step_s;
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

void run(Communicator& world, double forward_s) {
  const std::vector<Case> cases = {{"gpipe", 2, 4}, {"1f1b", 2, 4},   {"gpipe", 4, 4},     {"1f1b", 4, 4},
                                   {"1f1b", 4, 12}, {"gpipe", 4, 12}, {"1f1b", 4, 8, 1.5}, {"1f1b", 8, 16}};
  const bool speaks = world.rank() == 0;
  if (speaks) {
    fmt::print("slept stages over {}, forward {:.1f} ms, backward {:.1f} ms, messages of 1.2 MB\n",
               world.size() > 1 ? "MPI" : "threads", 1e3 * forward_s, 2e3 * forward_s);
    fmt::print("{:<8} {:>6} {:>6} {:>10} {:>9} {:>10} {:>9} {:>11} {:>11}\n", "schedule", "stages", "micros",
               "slow last", "textbook", "simulated", "measured", "difference", "step");
  }
  double worst = 0;
  for (const Case& what : cases) {
    if (world.size() > 1 && world.size() < what.positions) continue;
    const StageMap map(what.positions);
    const Schedule schedule = lowered(what, map);
    const Measured measured = measure_anywhere(world, what, schedule, forward_s);
    if (!speaks) continue;
    const Report report = simulate(schedule, map, measured.costs);
    const double difference = 100 * (measured.bubble - report.bubble);
    worst = std::max(worst, std::abs(difference));
    fmt::print("{:<8} {:>6} {:>6} {:>9.1f}x {:>7.1f} % {:>8.1f} % {:>7.1f} % {:>7.1f} pts {:>8.1f} ms\n",
               what.schedule, what.positions, what.micros, what.slow_stage,
               100 * textbook_bubble(what.positions, what.micros), 100 * report.bubble, 100 * measured.bubble,
               difference, 1e3 * measured.step_s);
  }
  if (speaks)
    fmt::print("largest difference between measured and simulated: {:.1f} points (goal: 3)\n", worst);
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  using namespace ptrain;
  const double forward_ms = argc > 1 ? std::atof(argv[1]) : 10;
  if (!(forward_ms > 0)) {
    fmt::print(stderr, "a forward of {} ms; give a number above 0\n", argv[1]);
    return static_cast<int>(ExitCode::usage);
  }
  Session session(find_launcher([](const char* name) { return std::getenv(name); }));
  return session.run([&] {
    run(session.world(), forward_ms / 1e3);
    return 0;
  });
}
