// launch/slurm/train.sbatch on a cluster that is there: told to stop or put back into the queue, the job
// saves, starts again by itself and ends with the bits of an unbroken run. Not for clusters of others: it
// submits jobs.
#include <cstring>

#include "src/io/file.h"
#include "tests/faults/chain.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;

enum class Notice {
  usr1,     // what train.sbatch gets before the time limit: save, leave with 75, back into the queue
  requeue,  // scontrol requeue: SIGTERM to all ranks at once, and the same job again
};

struct Case {
  const char* launch;  // PTRAIN_LAUNCH
  Notice notice;
};

/// The first word that a command says.
std::string word_of(const std::vector<std::string>& words) {
  const ProgramResult result = run_program(words);
  std::stringstream text(result.out);
  std::string word;
  text >> word;
  return result.code == 0 ? word : "";
}

bool is_queued(const std::string& job) {
  return !word_of({"squeue", "-h", "-j", job, "-o", "%A"}).empty();
}

void try_case(const Unbroken& unbroken, const Case& c, Tally& tally) {
  const TinyRun run;
  const fs::path log = run.root() / "job.log";
  const std::string name = fmt::format("{} by {}", c.notice == Notice::usr1 ? "notice" : "requeue", c.launch);
  std::vector<std::string> submit = {
      "sbatch",
      "--parsable",
      "-n",
      std::to_string(unbroken.setup().ranks),
      "-o",
      log.string(),
      fmt::format("--export=ALL,PTRAIN={},PTRAIN_LAUNCH={}", PTRAIN_PROGRAM, c.launch),
      std::string(PTRAIN_SOURCE) + "/launch/slurm/train.sbatch"};
  const std::string job = word_of(joined(submit, unbroken.words(run, 0)));
  tally.expect(!job.empty(), name + ": sbatch took no job");
  if (job.empty()) return;
  const auto rows = [&] { return rows_of(run.output()); };
  const int64_t half = unbroken.setup().steps / 2;
  wait_until([&] { return (!rows().empty() && rows().back().step >= half) || !is_queued(job); });
  const int64_t done = rows().empty() ? 0 : rows().back().step;
  if (c.notice == Notice::usr1) {
    run_program({"scancel", "--signal=USR1", "--batch", job});
  } else {
    run_program({"scontrol", "requeue", job});
  }
  ++tally.injected;
  const size_t faults = tally.faults.size();
  const bool has_ended = wait_until([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    return !is_queued(job);
  });
  if (!has_ended) run_program({"scancel", job});
  const std::string said = fs::exists(log) ? read_text(log, 1 << 24) : "no log";
  const size_t resumed = said.find("goes on after step ");
  tally.expect(resumed != std::string::npos, fmt::format("{}: it was not resumed: {}", name, said));
  if (resumed != std::string::npos) {
    const int64_t from = std::stoll(said.substr(resumed + std::strlen("goes on after step ")));
    tally.lost_steps.push_back(std::max<int64_t>(done - from, 0));
    tally.expect(from >= done, fmt::format("{}: saved after step {}, told after step {}", name, from, done));
  }
  unbroken.expect_same(run, tally);
  tally.recovered += tally.faults.size() == faults;
}

}  // namespace

Tally slurm_jobs() {
  Tally tally{.part = "Slurm's notice and requeue"};
  if (run_program({"sh", "-c", "command -v sbatch && sinfo -h"}).code != 0) {
    tally.skipped =
        "no Slurm cluster answers (sbatch and sinfo on PATH, SLURM_CONF where it is a private one)";
    return tally;
  }
  const Unbroken unbroken({.name = "under Slurm",
                           .steps = 1000,
                           .every = 200,
                           .words = {"--parallel.tensor", "2", "--parallel.pipeline", "2"}});
  for (const Case& c :
       {Case{"srun", Notice::usr1}, Case{"srun", Notice::requeue}, Case{"mpirun", Notice::usr1}})
    try_case(unbroken, c, tally);
  return tally;
}

}  // namespace ptrain::faults
