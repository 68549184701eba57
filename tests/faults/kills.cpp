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

Tally kill_at_commit_points(int rounds) {
  Tally tally{.part = "kill -9 of a rank at each moment of a save"};
  // What has to be there afterwards: the step that was being saved, the one before, or either of them.
  enum class Left { before, saved, either };
  const struct {
    const char* point;
    Left on_first, on_last;  // where the first rank is killed, which commits, and where the last one is
  } points[] = {
      {"open", Left::before, Left::before},
      {"mid_write", Left::before, Left::before},
      {"before_fsync", Left::before, Left::before},
      {"after_shard", Left::before, Left::before},
      {"before_manifest", Left::before, Left::either},
      {"after_manifest", Left::before, Left::either},
      {"after_rename", Left::saved, Left::either},
      {"during_deletion", Left::saved, Left::either},
  };
  Setup setup = setups()[0];
  setup.steps = setup.every * static_cast<int64_t>(2 * std::size(points) + 4);
  const Unbroken unbroken(setup);
  for (int round = 0; round < rounds; ++round) {
    Chain chain(unbroken, tally);
    chain.run_to(3 * setup.every);  // checkpoints that a further save makes one too many
    for (const auto& at : points) {
      for (const int rank : {0, 3}) {
        const int64_t before = take_inventory(chain.checkpoints()).newest.value_or(0);
        const int64_t step = (before / setup.every + 1) * setup.every;
        std::string fault = fmt::format("kill@{}:rank{}:step{}", at.point, rank, step);
        std::function<bool(Job&)> inject = [](Job&) { return true; };
        if (std::string_view(at.point) == "during_deletion") {
          // The first rank alone deletes. It stands still there while the other one is killed.
          fault = fmt::format("{}@during_deletion:rank0", rank == 0 ? "kill" : "stop");
          if (rank != 0) inject = [rank](Job& job) { return job.kill_rank_when_stopped(rank, 0); };
        }
        const ProgramResult result = chain.start(inject, {"PTRAIN_FAULT=" + fault});
        tally.expect(result.code == 137, fmt::format("{}: ended with {}", fault, result.code));
        if (chain.is_through()) return tally;  // nothing was killed: said above
        const int64_t left = take_inventory(chain.checkpoints()).newest.value_or(0);
        const Left wanted = rank == 0 ? at.on_first : at.on_last;
        tally.expect((left == before && wanted != Left::saved) || (left == step && wanted != Left::before),
                     fmt::format("{}: the newest whole checkpoint is then of step {}", fault, left));
      }
    }
    chain.start();
  }
  return tally;
}

}  // namespace ptrain::faults
