// Ranks killed at random times and at the moments of a save.
#include "kernels/base/rng.h"
#include "tests/faults/chain.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

using Words = std::vector<std::string>;

Words grid(int tensor, int pipeline) {
  return {"--parallel.tensor", std::to_string(tensor), "--parallel.pipeline", std::to_string(pipeline)};
}

/// One that has always the same grid, one with data ranks that share the state, one that goes on under
/// another grid each time: with grid-independent sums the bits stay the same.
std::vector<Setup> setups() {
  std::vector<Setup> all = {
      {.name = "tensor 2 x pipeline 2", .words = grid(2, 2)},
      {.name = "pipeline 2 x data 2, zero 2", .words = joined(grid(1, 2), {"--parallel.zero", "2"})},
      {.name = "other grids each time", .words = {"--train.deterministic", "grid"}}};
  all[2].turns = {grid(1, 2), grid(1, 4), grid(1, 1)};
  return all;
}

}  // namespace

Tally kill_at_random_times(int kills) {
  Tally tally{.part = "kill -9 of a random rank at a random time"};
  const Rng rng(20, 6);
  uint64_t draw = 0;
  const std::vector<Setup> all = setups();
  for (size_t s = 0; s < all.size(); ++s) {
    // Half of the kills for the first one.
    const int share = s == 0 ? kills - 2 * (kills / 4) : kills / 4;
    const Unbroken unbroken(all[s]);
    // From before the first step to where a fourth of the training is done: some five kills to a run.
    const double earliest_s = 0.5 * unbroken.first_step_s();
    const double latest_s = unbroken.first_step_s() + 0.25 * unbroken.training_s();
    int done = 0;
    while (done < share) {
      Chain chain(unbroken, tally);
      while (!chain.is_through()) {
        if (done == share) {
          chain.start();
          break;
        }
        const auto rank = static_cast<int>(rng.below(draw++, static_cast<uint64_t>(all[s].ranks)));
        const double after_s = earliest_s + rng.uniform(draw++) * (latest_s - earliest_s);
        const Job::Linger linger = done % 4 == 3 ? Job::Linger::two_seconds : Job::Linger::none;
        const auto inject = [&](Job& job) {
          std::this_thread::sleep_for(std::chrono::duration<double>(after_s));
          return job.kill_rank(rank);
        };
        const int before = tally.injected;
        chain.start(inject, {}, linger);
        done += tally.injected - before;
      }
    }
  }
  return tally;
}

}  // namespace ptrain::faults
