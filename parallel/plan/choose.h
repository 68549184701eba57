// What a configuration leaves to the program: the schedule and how much is computed again, chosen by the
// simulator and the ledger. Pure: every rank that is given the same numbers chooses the same. Not for what
// the user chose: see advice.h for what could be changed there.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "parallel/plan/estimate.h"

namespace ptrain {

/// The plan of a choice on tensor * pipeline * data ranks. Throws (ExitCode::usage) where it cannot be.
using PlanMaker = std::function<Plan(const ParallelConfig&)>;

/// A choice and what it costs on some hardware.
struct Judged {
  ParallelConfig parallel;
  double step_s = 0;
  double bytes = 0;  // of the rank that holds most
  double bubble = 0;
  bool does_fit = false;
};
/// Nothing where the plan is refused as impossible; other errors pass.
std::optional<Judged> judge(const ParallelConfig& parallel, const PlanMaker& make, const Hardware& hardware);

/// The least of recompute none, selective, full for the fewest blocks of each stage, full for all, that fits
/// the hardware; where none does, the one that holds least. `parallel.recompute` is not looked at.
std::optional<Judged> with_least_recompute(ParallelConfig parallel, const PlanMaker& make,
                                           const Hardware& hardware);

/// What is left open.
struct Open {
  bool is_schedule = false;  // virtual_stages > 1 is kept, 1 leaves it open too
  bool is_recompute = false;

  bool is_any() const { return is_schedule || is_recompute; }
};

struct Choice {
  ParallelConfig parallel;
  std::string why;  // one line; empty where nothing is open
};

/// The fastest of the open choices that fit the hardware's memory, the plainer of equals: 1f1b, interleaved
/// with 2 and more stages a rank, zero-bubble H1 and ZB-V, each with the least recompute. gpipe only where
/// all others are impossible. Where nothing fits, what holds least. ideal_hardware() compares by FLOPs and
/// bubbles alone. Errors: ExitCode::usage, that of the plan, where every choice is impossible.
Choice choose(const ParallelConfig& from, Open open, const PlanMaker& make, const Hardware& hardware);

/// "1f1b", "interleaved, 3 stages a rank", "zero_bubble (ZB-V)"
std::string schedule_text(const ParallelConfig& parallel);
/// "none", "full for the first 3 blocks of each stage"
std::string recompute_text(const ParallelConfig& parallel);

}  // namespace ptrain
