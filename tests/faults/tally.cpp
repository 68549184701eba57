#include "tests/faults/tally.h"

#include <fmt/format.h>

#include <algorithm>

namespace ptrain::faults {
namespace {

template <class T>
T median_of(std::vector<T> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

bool Tally::is_good() const {
  if (!skipped.empty()) return faults.empty();
  return faults.empty() && injected > 0 && recovered == injected && bad_accepted == 0;
}

std::string to_text(const Tally& tally) {
  if (!tally.skipped.empty()) return fmt::format("{}: skipped: {}", tally.part, tally.skipped);
  std::string text = fmt::format("{}: {} injected, {} recovered, {} bad checkpoints accepted", tally.part,
                                 tally.injected, tally.recovered, tally.bad_accepted);
  if (!tally.recovery_s.empty()) {
    text += fmt::format("; recovery median {:.2f} s, longest {:.2f} s", median_of(tally.recovery_s),
                        std::ranges::max(tally.recovery_s));
  }
  if (!tally.lost_steps.empty()) {
    text += fmt::format("; work lost: median {}, most {} steps", median_of(tally.lost_steps),
                        std::ranges::max(tally.lost_steps));
  }
  for (const std::string& note : tally.notes) text += "\n  " + note;
  for (const std::string& fault : tally.faults) text += "\n  FAILED: " + fault;
  return text;
}

}  // namespace ptrain::faults
