#include "parallel/plan/choose.h"

#include <algorithm>
#include <vector>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr int most_virtual_stages = 8;
/// A choice further down the list has to be faster than this to be taken: below it the simulator does not
/// know.
constexpr double worth_it = 0.999;

int64_t blocks_of(const Plan& plan) {
  return std::ranges::count(plan.workload.units, UnitKind::block, &Unit::kind);
}

/// The most blocks that a stage has.
int64_t blocks_of_a_stage(const Plan& plan) {
  int64_t most = 0;
  for (const StagePlan& stage : plan.stages) {
    int64_t blocks = 0;
    for (int64_t unit = stage.units.begin; unit < stage.units.end(); ++unit) {
      blocks += plan.workload.units[static_cast<size_t>(unit)].kind == UnitKind::block ? 1 : 0;
    }
    most = std::max(most, blocks);
  }
  return most;
}

/// Runs `body`; nothing where it refuses a combination as the user's fault.
template <class Body>
auto unless_refused(Body body) -> std::optional<decltype(body())> {
  try {
    return body();
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
    return std::nullopt;
  }
}

Judged judged(const Plan& plan, const Hardware& hardware) {
  const Estimate estimate = estimate_of(plan, hardware);
  return {.parallel = plan.parallel,
          .step_s = estimate.step_s,
          .bytes = estimate.most_bytes,
          .bubble = estimate.bubble,
          .does_fit = estimate.does_fit};
}

/// The schedules to compare, plainest first.
std::vector<ParallelConfig> schedules_of(const ParallelConfig& from, Open open, const PlanMaker& make) {
  if (!open.is_schedule) return {from};
  std::vector<ParallelConfig> schedules;
  const auto add = [&](ScheduleName schedule, int virtual_stages) {
    ParallelConfig parallel = from;
    parallel.schedule = schedule;
    parallel.virtual_stages = virtual_stages;
    schedules.push_back(parallel);
  };
  const int wanted = from.virtual_stages;
  if (wanted > 1) {
    add(ScheduleName::interleaved, wanted);
    if (wanted == 2) add(ScheduleName::zero_bubble, 2);
    return schedules;
  }
  add(ScheduleName::one_f_one_b, 1);
  if (from.pipeline == 1) return schedules;  // nobody to wait for
  const auto plain = unless_refused([&] { return make(schedules[0]); });
  const int64_t most = plain ? blocks_of(*plain) / from.pipeline : 1;
  for (int stages = 2; stages <= std::min<int64_t>(most, most_virtual_stages); ++stages) {
    add(ScheduleName::interleaved, stages);
  }
  add(ScheduleName::zero_bubble, 1);
  if (most >= 2) add(ScheduleName::zero_bubble, 2);
  return schedules;
}

}  // namespace

std::string schedule_text(const ParallelConfig& parallel) {
  const std::string name(name_of(parallel.schedule));
  if (parallel.schedule == ScheduleName::interleaved)
    return fmt::format("{}, {} stages a rank", name, parallel.virtual_stages);
  if (parallel.schedule == ScheduleName::zero_bubble)
    return fmt::format("{} ({})", name, parallel.virtual_stages == 1 ? "H1" : "ZB-V");
  return name;
}

std::string recompute_text(const ParallelConfig& parallel) {
  if (parallel.recompute != Recompute::full || parallel.recompute_blocks >= all_blocks)
    return std::string(name_of(parallel.recompute));
  return fmt::format(
      "full for the first {} of each stage",
      parallel.recompute_blocks == 1 ? "block" : fmt::format("{} blocks", parallel.recompute_blocks));
}

std::optional<Judged> judge(const ParallelConfig& parallel, const PlanMaker& make, const Hardware& hardware) {
  return unless_refused([&] { return judged(make(parallel), hardware); });
}

std::optional<Judged> with_least_recompute(ParallelConfig parallel, const PlanMaker& make,
                                           const Hardware& hardware) {
  // 1. Nothing, and what is cheap.
  std::optional<Judged> least;
  const auto keep = [&](std::optional<Judged> other) {
    if (other && (!least || other->does_fit || other->bytes < least->bytes)) least = std::move(other);
    return least && least->does_fit;
  };
  parallel.recompute_blocks = all_blocks;
  for (const Recompute recompute : {Recompute::none, Recompute::selective}) {
    parallel.recompute = recompute;
    if (keep(judge(parallel, make, hardware))) return least;
  }
  // 2. Everything, then as few blocks as do.
  parallel.recompute = Recompute::full;
  const auto plan = unless_refused([&] { return make(parallel); });
  if (!plan || !keep(judged(*plan, hardware))) return least;
  int64_t enough = blocks_of_a_stage(*plan), too_few = 0;
  while (enough - too_few > 1) {
    parallel.recompute_blocks = (enough + too_few) / 2;
    const auto fewer = judge(parallel, make, hardware);
    const bool does = fewer && fewer->does_fit;
    (does ? enough : too_few) = parallel.recompute_blocks;
    if (does) least = fewer;
  }
  return least;
}

Choice choose(const ParallelConfig& from, Open open, const PlanMaker& make, const Hardware& hardware) {
  if (!open.is_any()) return {.parallel = from, .why = {}};
  std::optional<Judged> best, plainest;
  const auto consider = [&](const ParallelConfig& parallel) {
    const auto candidate =
        open.is_recompute ? with_least_recompute(parallel, make, hardware) : judge(parallel, make, hardware);
    if (!candidate) return;
    if (!plainest) plainest = candidate;
    const bool is_better = !best                                   ? true
                           : candidate->does_fit != best->does_fit ? candidate->does_fit
                           : candidate->does_fit ? candidate->step_s < best->step_s * worth_it
                                                 : candidate->bytes < best->bytes;
    if (is_better) best = candidate;
  };
  for (const ParallelConfig& parallel : schedules_of(from, open, make)) consider(parallel);
  if (!best && open.is_schedule) {
    ParallelConfig gpipe = from;
    gpipe.schedule = ScheduleName::gpipe;
    gpipe.virtual_stages = 1;
    consider(gpipe);
  }
  if (!best) make(from);  // says why
  check(best.has_value(), "no choice is possible, yet its plan is");

  Choice choice{.parallel = best->parallel, .why = {}};
  if (open.is_schedule) {
    choice.why = fmt::format("parallel.schedule auto: {}", schedule_text(best->parallel));
    choice.why += best->parallel.pipeline == 1 ? ", since one stage has nobody to wait for"
                                               : fmt::format(", bubble {:.1f} %", 100 * best->bubble);
    if (schedule_text(plainest->parallel) != schedule_text(best->parallel)) {
      choice.why += fmt::format("; {}: {:.1f} %", schedule_text(plainest->parallel), 100 * plainest->bubble);
    }
  }
  if (open.is_recompute) {
    choice.why += fmt::format("{}train.recompute auto: {}", choice.why.empty() ? "" : "; ",
                              recompute_text(best->parallel));
  }
  const double room = static_cast<double>(hardware.memory_bytes - hardware.reserved_bytes);
  const bool is_known = hardware.memory_bytes < (int64_t{1} << 60);
  choice.why += is_known
                    ? fmt::format("; {} {} of {}", bytes_text(best->bytes),
                                  best->does_fit ? "fit" : "are the least, and do not fit", bytes_text(room))
                    : "; the memory of a rank is not known here";
  return choice;
}

}  // namespace ptrain
