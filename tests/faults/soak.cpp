// A long run that is stopped and gone on with: neither memory nor open files grow, the bits stay the same.
#include <unistd.h>

#include <map>

#include "tests/faults/chain.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;

constexpr double most_growth = 0.01;

struct Sample {
  int64_t step = 0;
  int64_t resident_bytes = 0;
  int64_t open_files = 0;
};

std::optional<Sample> sample_of(pid_t process, int64_t step) {
  const fs::path place = fs::path("/proc") / std::to_string(process);
  int64_t all_pages = 0, resident_pages = 0;
  if (!(std::ifstream(place / "statm") >> all_pages >> resident_pages)) return std::nullopt;
  Sample sample{step, resident_pages * ::sysconf(_SC_PAGESIZE), 0};
  std::error_code error;
  for (fs::directory_iterator it(place / "fd", error), end; !error && it != end; it.increment(error))
    ++sample.open_files;
  if (error) return std::nullopt;
  return sample;
}

/// The least of each over samples of steps [begin, end): between saves, so that what a save takes and gives
/// back does not count, however the samples fall.
Sample least(const std::vector<Sample>& samples, int64_t begin, int64_t end) {
  Sample least{0, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max()};
  for (const Sample& sample : samples) {
    if (sample.step < begin || sample.step >= end) continue;
    least.step = sample.step;
    least.resident_bytes = std::min(least.resident_bytes, sample.resident_bytes);
    least.open_files = std::min(least.open_files, sample.open_files);
  }
  return least;
}

}  // namespace

Tally soak(int steps, int saves, int resumes) {
  Tally tally{.part = fmt::format("soak of {} steps, {} saves, {} resumes", steps, saves, resumes)};
  const Unbroken unbroken({.name = "tensor 2 x pipeline 2",
                           .steps = steps,
                           .every = steps / saves,
                           .words = {"--parallel.tensor", "2", "--parallel.pipeline", "2"}});
  Chain chain(unbroken, tally);
  double most_grown = 0;
  for (int start = 0; start <= resumes; ++start) {
    const int64_t first = int64_t{start} * steps / (resumes + 1),
                  last = int64_t{start + 1} * steps / (resumes + 1);
    std::vector<pid_t> processes(static_cast<size_t>(unbroken.setup().ranks));
    std::vector<std::vector<Sample>> samples(processes.size());
    const auto look = [&](Job& job) {
      const std::vector<Row> rows = rows_of(chain.run().output());
      if (rows.empty() || rows.back().time < job.start_time()) return;
      for (size_t rank = 0; rank < processes.size(); ++rank) {
        if (processes[rank] == 0) processes[rank] = job.process_of(static_cast<int>(rank));
        const std::optional<Sample> sample = sample_of(processes[rank], rows.back().step);
        if (sample) samples[rank].push_back(*sample);
      }
    };
    chain.run_to(start == resumes ? steps + 1 : last, look);
    // The third quarter against the last one: what it takes to get going, the first saves among it, lies
    // before.
    const int64_t half = first + (last - first) / 2, quarter = (last - first) / 4;
    for (size_t rank = 0; rank < samples.size(); ++rank) {
      const Sample warm = least(samples[rank], half, half + quarter);
      const Sample late = least(samples[rank], half + quarter, last);
      tally.expect(warm.step > 0 && late.step > 0, fmt::format("start {}, rank {}: no samples", start, rank));
      if (warm.step == 0 || late.step == 0) continue;
      const double grown =
          static_cast<double>(late.resident_bytes) / static_cast<double>(warm.resident_bytes) - 1;
      most_grown = std::max(most_grown, grown);
      tally.expect(
          grown < most_growth,
          fmt::format("start {}, rank {}: resident memory grew from {} bytes at step {} to {} at step {}",
                      start, rank, warm.resident_bytes, warm.step, late.resident_bytes, late.step));
      tally.expect(late.open_files == warm.open_files,
                   fmt::format("start {}, rank {}: {} open files at step {}, {} at step {}", start, rank,
                               warm.open_files, warm.step, late.open_files, late.step));
    }
  }
  tally.notes.push_back(fmt::format("resident memory of a rank grew by {:.2f} % at most, open files by none",
                                    100 * most_grown));
  return tally;
}

}  // namespace ptrain::faults
