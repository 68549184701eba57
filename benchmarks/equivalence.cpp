// Does every schedule x ZeRO 0-3 x recompute x grid of 1, 2, 4, 6 and 8 ranks (and 3) give the golden loss
// curves in fp32? The whole product that fits; tests run a sample of it. Ranks are threads.
//   build/benchmarks/equivalence [ranks, default 0: all of them] [most steps of a curve, default 0: all]
// A line for each case, one for each number of ranks, and a
// summary. Exit code 1 where a case is off its curve by more than the tests allow.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "parallel/comm/thread_comm.h"
#include "tests/support/equivalence.h"

namespace ptrain {
namespace {

constexpr int worlds[] = {1, 2, 3, 4, 6, 8};

struct Worst {
  Deviation deviation;
  std::string of_loss, of_norm;
  int cases = 0, failures = 0;

  void include(const Worst& other) {
    if (other.deviation.loss > deviation.loss) of_loss = other.of_loss;
    if (other.deviation.grad_norm > deviation.grad_norm) of_norm = other.of_norm;
    deviation.include(other.deviation);
    cases += other.cases;
    failures += other.failures;
  }
};

/// All ranks say the same; the first one's word counts.
Deviation run(const CurveCase& golden, const Grid& grid, int64_t most_steps) {
  Deviation deviation;
  run_thread_ranks(grid.world(), [&](Communicator& world) {
    const int64_t steps = most_steps > 0 ? std::min(most_steps, golden.steps) : golden.steps;
    const std::vector<StepResult> results = train_on(golden, grid, world, steps);
    if (world.rank() == 0) deviation = deviation_of(golden, results);
  });
  return deviation;
}

Worst run_all(const std::vector<CurveCase>& curves, int ranks, int64_t most_steps) {
  Worst worst;
  for (const auto& [model, grid] : all_cases(curves, ranks)) {
    const CurveCase& golden = curves[static_cast<size_t>(model)];
    const std::string name = fmt::format("{} {}", golden.directory.filename().string(), to_string(grid));
    const Deviation deviation = run(golden, grid, most_steps);
    const Worst one{deviation, name, name, 1, deviation.fault.empty() ? 0 : 1};
    fmt::print("{:2} ranks: loss {:.1e} norm {:.1e} {}{}\n", ranks, deviation.loss, deviation.grad_norm, name,
               deviation.fault.empty() ? "" : ": FAILED at " + deviation.fault);
    std::fflush(stdout);
    worst.include(one);
  }
  return worst;
}

void print(const std::string& what, const Worst& worst) {
  fmt::print("{}: {} cases, {} failed; worst loss {:.1e} ({}), norm {:.1e} ({})\n", what, worst.cases,
             worst.failures, worst.deviation.loss, worst.of_loss, worst.deviation.grad_norm, worst.of_norm);
  std::fflush(stdout);
}

int main_of(int ranks, int64_t most_steps) {
  const std::vector<CurveCase> curves = golden_curves();
  Worst worst;
  for (int world : worlds) {
    if (ranks != 0 && ranks != world) continue;
    const auto begin = std::chrono::steady_clock::now();
    const Worst here = run_all(curves, world, most_steps);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    print(fmt::format("{} ranks in {:.0f} s", world, seconds.count()), here);
    worst.include(here);
  }
  check(worst.cases > 0, ExitCode::usage,
        "no case on {} ranks; give 1, 2, 3, 4, 6 or 8, or 0 for all of them", ranks);
  print("all", worst);
  return worst.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  try {
    return ptrain::main_of(argc > 1 ? std::atoi(argv[1]) : 0, argc > 2 ? std::atoll(argv[2]) : 0);
  } catch (const ptrain::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
