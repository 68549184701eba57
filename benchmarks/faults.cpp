// The fault suite in full, with its times: 200 kills, every bit of damage, 2,000 steps of soak; tests run a
// short form of the same parts. Needs mpirun; says what it skips.
//   build/benchmarks/faults [part, default: all] [how many faults, default: the number]
// A line for each part. Exit code 1 where a fault was not recovered from.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

struct Part {
  const char* name;
  int count;
  Tally (*run)(int count);
};

const Part parts[] = {
    {"kill", 200, kill_at_random_times},
    {"commit", 5, kill_at_commit_points},
    {"stop", 20, stop_at_random_times},
    {"damage", 1000, [](int count) { return damaged_files(count, count / 5); }},
    {"order", 50, order_on_disk},
    {"failing", 10, failing_disk},
    {"full", 1, [](int) { return full_disk(); }},
    {"soak", 2000, [](int count) { return soak(count, std::max(count / 20, 1), std::max(count / 200, 1)); }},
};

int main_of(const char* wanted, int count) {
  int ran = 0, failures = 0;
  for (const Part& part : parts) {
    if (std::strcmp(wanted, "all") != 0 && std::strcmp(wanted, part.name) != 0) continue;
    const Tally tally = part.run(count > 0 ? count : part.count);
    fmt::print("{}\n", to_text(tally));
    std::fflush(stdout);
    ++ran;
    failures += !tally.is_good();
  }
  if (ran == 0) {
    fmt::print(stderr, "no part {}; there are: all", wanted);
    for (const Part& part : parts) fmt::print(stderr, ", {}", part.name);
    fmt::print(stderr, "\n");
    return 2;
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ptrain::faults

int main(int argc, char** argv) {
  try {
    return ptrain::faults::main_of(argc > 1 ? argv[1] : "all", argc > 2 ? std::atoi(argv[2]) : 0);
  } catch (const std::exception& error) {
    fmt::print(stderr, "faults: {}\n", error.what());
    return 1;
  }
}
