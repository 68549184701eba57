// Saves on a disk that is full or broken: nothing is committed, older checkpoints stay, the message says
// where and how much, training goes on to the same bits, and the next save succeeds.
#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "kernels/base/error.h"
#include "src/io/checkpoint.h"
#include "tests/faults/chain.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;

constexpr double most_step_s = 20;  // all ranks agree within 2 s; ten times that on a loaded machine

Setup setup_of(int64_t steps, int64_t every) {
  return {.name = "tensor 2 x pipeline 2",
          .steps = steps,
          .every = every,
          .words = {"--parallel.tensor", "2", "--parallel.pipeline", "2"}};
}

struct Failure {
  std::string call, reason;
  int rank;          // -1: all
  long from;         // that call and all later ones
  std::string file;  // part of its path below the checkpoint
  bool is_an_error;  // or something that a save has to live with
};

const Failure failures[] = {
    {"pwrite", "EIO", 0, 1, "/model-", true},
    {"pwrite", "EIO", 3, 3, "/state/", true},
    {"pwrite", "ENOSPC", 2, 2, "/model-", true},
    {"pwrite", "half", -1, 1, "", false},
    {"fsync", "EIO", 1, 1, "/state/", true},
    {"fsync", "EIO", 2, 1, "/model-", true},
    {"fallocate", "ENOSPC", 0, 2, "/model-", true},
    {"pwrite", "ENOSPC", 0, 1, "/MANIFEST.json", true},
    {"pwrite", "half", 0, 1, "/MANIFEST.json", false},
    {"fsync", "EIO", 0, 1, "/MANIFEST.json", true},
    {"rename", "EIO", 0, 1, "/MANIFEST.json", true},
    {"pwrite", "EDQUOT", 0, 1, "/config.json", true},
};

int number_of(const std::string& reason) {
  if (reason == "ENOSPC") return ENOSPC;
  return reason == "EDQUOT" ? EDQUOT : EIO;
}

/// Where all ranks have done and seen the same, no step took longer than that.
void expect_no_long_step(const fs::path& output, Tally& tally) {
  const std::vector<Row> rows = rows_of(output);
  double longest = 0;
  for (size_t i = 1; i < rows.size(); ++i) longest = std::max(longest, rows[i].time - rows[i - 1].time);
  tally.expect(longest < most_step_s, fmt::format("a step took {:.1f} s, the save with it", longest));
  tally.notes.push_back(fmt::format("longest step with what was saved in it: {:.2f} s", longest));
}

/// "…; the checkpoint of step 4 needs 1131520 bytes in /x/checkpoints, 3000000 are free"
void expect_message(const std::string& err, int64_t step, const std::string& reason, Tally& tally) {
  const std::string need = fmt::format("the checkpoint of step {} needs ", step);
  const size_t at = err.find(need);
  tally.expect(at != std::string::npos, fmt::format("step {}: no word of a failed save in: {}", step, err));
  if (at == std::string::npos) return;
  const size_t begin = err.rfind('\n', at) + 1, end = err.find('\n', at);
  const std::string line = err.substr(begin, end - begin);
  const bool is_whole = line.find(".tmp-" + checkpoint_name(step)) != std::string::npos &&
                        line.find(" bytes in /") != std::string::npos &&
                        line.find(" are free") != std::string::npos && line.find(reason) != std::string::npos;
  tally.expect(is_whole, fmt::format("step {}: path, reason, need and free are not all in: {}", step, line));
}

/// Takes what room the disk has left.
void fill_up(const fs::path& path) {
  std::ofstream file(path);
  const std::string page(4096, 'x');
  while (file.write(page.data(), std::ssize(page)).flush()) {
  }
}

}  // namespace

Tally failing_disk(int rounds) {
  Tally tally{.part = "failing writes, fsyncs and renames"};
  // Every second save is hit, by the next failure of the table each time.
  const auto count = static_cast<int64_t>(std::size(failures)) * rounds;
  const Unbroken unbroken(setup_of(4 * count + 2, 2));
  std::string spec;
  const auto step_of = [](int64_t i) { return 4 * (i + 1); };
  const auto failure_of = [](int64_t i) { return failures[static_cast<size_t>(i) % std::size(failures)]; };
  for (int64_t i = 0; i < count; ++i) {
    const Failure failure = failure_of(i);
    spec += fmt::format("{}{}:{}:.tmp-{}{}:{}:{}", i > 0 ? ";" : "", failure.call, failure.reason,
                        checkpoint_name(step_of(i)), failure.file, failure.rank, failure.from);
  }
  TinyRun run;
  Job job(4, joined(unbroken.words(run, 0), {"--checkpoint.keep", "10000"}),
          {"FAILING_IO=" + spec, std::string("LD_PRELOAD=") + PTRAIN_FAILING_IO});
  const ProgramResult result = job.wait();
  tally.expect(result.code == 0, fmt::format("the run ended with {}: {}", result.code, result.err));
  const Inventory found = take_inventory(run.output() / "checkpoints");
  for (const std::string& damage : found.damaged) {
    ++tally.bad_accepted;
    tally.expect(false, damage);
  }
  for (int64_t i = 0; i < count; ++i) {
    const size_t faults = tally.faults.size();
    const int64_t step = step_of(i);
    ++tally.injected;
    const auto is_there = [&](int64_t n) {
      return fs::exists(run.output() / "checkpoints" / checkpoint_name(n));
    };
    const Failure failure = failure_of(i);
    tally.expect(is_there(step) != failure.is_an_error,
                 fmt::format("{} {} on {}: step {} is {}", failure.call, failure.reason, failure.file, step,
                             is_there(step) ? "committed" : "missing"));
    if (failure.is_an_error)
      expect_message(result.err, step, std::strerror(number_of(failure.reason)), tally);
    for (const int64_t other : {step - 2, step + 2})
      tally.expect(is_there(other), fmt::format("step {} beside the failed one is missing", other));
    tally.recovered += tally.faults.size() == faults;
  }
  unbroken.expect_same(run, tally);
  expect_no_long_step(run.output(), tally);
  return tally;
}

Tally full_disk() {
  Tally tally{.part = "a full disk of 8 MB"};
  const Unbroken unbroken(setup_of(400, 20));
  TinyRun run;
  const fs::path checkpoints = run.output() / "checkpoints";
  fs::create_directories(run.output());
  // A mount namespace of this process's own: it and the disk end with it.
  const bool is_mounted = ::unshare(CLONE_NEWNS) == 0 &&
                          ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                          ::mount("tmpfs", run.output().c_str(), "tmpfs", 0, "size=8m") == 0;
  if (!is_mounted) {
    tally.skipped = "mounting a tmpfs is not allowed here (it takes root)";
    return tally;
  }
  // 8 MB, 5 of which are taken: two checkpoints of 1.1 MB fit, a third one does not.
  put(run.output() / "taken", std::string(5 << 20, 'x'));
  Job job(4, unbroken.words(run, 0));
  const auto has_failed = [&] { return job.err_so_far().find(" are free") != std::string::npos; };
  const bool is_full = wait_until([&] { return has_failed() || job.has_ended(); }) && has_failed();
  const Inventory full = take_inventory(checkpoints);
  // Then not even a row of metrics.jsonl finds room.
  fill_up(run.output() / "rest");
  const auto waits = [&] { return job.err_so_far().find("its rows wait in memory") != std::string::npos; };
  const bool is_waiting = wait_until([&] { return waits() || job.has_ended(); }) && waits();
  fs::remove(run.output() / "rest");
  fs::remove(run.output() / "taken");
  const ProgramResult result = job.wait();
  ++tally.injected;
  tally.expect(is_full, "no save failed for want of room");
  tally.expect(is_waiting, "no row of metrics.jsonl waited for room");
  tally.expect(full.newest.has_value() && full.damaged.empty(), "the older checkpoints did not stay whole");
  tally.expect(result.code == 0, fmt::format("the run ended with {}: {}", result.code, result.err));
  expect_message(result.err, full.newest.value_or(0) + unbroken.setup().every, "", tally);
  const Inventory after = take_inventory(checkpoints);
  tally.expect(after.newest == unbroken.setup().steps, "with room again the last step was not saved");
  tally.bad_accepted = static_cast<int>(after.damaged.size());
  unbroken.expect_same(run, tally);
  expect_no_long_step(run.output(), tally);
  tally.recovered += tally.faults.empty();
  ::umount2(run.output().c_str(), MNT_DETACH);
  return tally;
}

}  // namespace ptrain::faults
