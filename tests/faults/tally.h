// What a part of the fault suite has counted: faults injected, recovered from, and what did not hold. The
// parts fill it; the tests and benchmarks/faults print and judge it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ptrain::faults {

struct Tally {
  std::string part;
  int injected = 0;
  int recovered = 0;
  int bad_accepted = 0;             // damaged or half-written checkpoints that a run went on from
  std::vector<double> recovery_s;   // from a command's start to the first step that it logged
  std::vector<int64_t> lost_steps;  // done before the fault, and done again after it
  std::vector<std::string> notes;   // further figures, for the reader
  std::vector<std::string> faults;  // sentences; empty where all held
  std::string skipped;              // why nothing could be injected here

  void expect(bool is_true, const std::string& fault) {
    if (!is_true) faults.push_back(fault);
  }
  bool is_good() const;
};

/// "kill at random times: 20 injected, 20 recovered, 0 bad checkpoints accepted; recovery median 0.61 s,
/// longest 0.88 s; work lost: median 9, most 19 steps", then notes and faults, a line each.
std::string to_text(const Tally& tally);

}  // namespace ptrain::faults
