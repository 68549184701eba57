// Ranks stopped at random times: SIGSTOP, as a frozen host or a debugger left behind does it.
#include <algorithm>
#include <chrono>

#include "kernels/base/rng.h"
#include "src/io/json.h"
#include "tests/faults/job.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int ranks = 4;
constexpr double timeout_s = 3;

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Waits until a job has logged a step of its own.
bool goes_on(const TinyRun& run, Job& job) {
  const auto has_logged = [&] {
    const std::vector<Row> rows = rows_of(run.output());
    return !rows.empty() && rows.back().time > job.start_time();
  };
  return wait_until([&] { return job.has_ended() || has_logged(); }) && !job.has_ended();
}

}  // namespace

Tally stop_at_random_times(int stops) {
  Tally tally{.part = "SIGSTOP of a random rank at a random time"};
  const TinyRun run;
  run.configure(
      fmt::format("parallel: {{tensor: 2, pipeline: 2}}\nbatch: {{micro: 2, global: 8}}\n"
                  "train: {{steps: 1000000, hang_timeout_s: {}, max_fruitless_starts: 0}}\n"
                  "checkpoint: {{every: 40}}\n",
                  timeout_s));
  const Rng rng(21, 6);
  uint64_t draw = 0;
  std::vector<double> found_s, ended_s;
  for (int i = 0; i < stops; ++i) {
    Job job(ranks, {run.config().string()});
    tally.expect(goes_on(run, job), fmt::format("start {} did not go on: {}", i, job.err_so_far()));
    std::this_thread::sleep_for(std::chrono::duration<double>(rng.uniform(draw++)));
    // 1. Stop one, and see when it is found and when nothing is left.
    const auto rank = static_cast<int>(rng.below(draw++, ranks));
    const pid_t process = job.process_of(rank);
    if (process == 0 || ::kill(process, SIGSTOP) != 0) {
      tally.expect(false, fmt::format("rank {} was not there to be stopped", rank));
      continue;
    }
    const auto stopped = Clock::now();
    ++tally.injected;
    wait_until([&] { return job.has_ended() || job.err_so_far().find("hang: ") != std::string::npos; });
    found_s.push_back(since(stopped));
    const ProgramResult result = job.wait();
    ended_s.push_back(since(stopped));
    // 2. Is the right one named, once, and is that what the job ends with?
    const std::string named = fmt::format("hang: rank {} on ", rank);
    const Json failure = read_json(run.output() / "failure.json");
    const bool is_named = times_in("hang: ", result.err) == 1 && times_in(named, result.err) == 1 &&
                          failure.at("rank") == rank && failure.at("ranks").size() == ranks;
    tally.expect(is_named, fmt::format("rank {} was stopped, and this was said: {}", rank, result.err));
    tally.expect(result.code == 66, fmt::format("exit {} and not 66", result.code));
    tally.recovered += is_named && result.code == 66;
  }
  // 3. The same command goes on.
  Job again(ranks, {run.config().string()});
  tally.expect(goes_on(run, again), "the last start did not go on: " + again.err_so_far());
  ::kill(again.mpirun(), SIGUSR1);
  tally.expect(again.wait().code == 75, "the last start did not end with 75");
  if (found_s.empty()) return tally;
  std::ranges::sort(found_s);
  std::ranges::sort(ended_s);
  tally.notes.push_back(fmt::format(
      "timeout {} s: named {:.1f} s after the stop (median), {:.1f} s (longest); the job is gone after "
      "{:.1f} "
      "and {:.1f} s",
      timeout_s, found_s[found_s.size() / 2], found_s.back(), ended_s[ended_s.size() / 2], ended_s.back()));
  tally.expect(found_s.back() < 10 * (timeout_s + 2),
               fmt::format("named only after {:.1f} s", found_s.back()));
  return tally;
}

}  // namespace ptrain::faults
