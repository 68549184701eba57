#include "parallel/plan/measured.h"

#include <algorithm>
#include <limits>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"

namespace ptrain {
namespace {

double length_s(const Interval& interval) {
  return interval.end_s - interval.begin_s;
}

void check_sizes(const Schedule& schedule, const MeasuredIntervals& intervals) {
  bool is_equal = schedule.programs.size() == intervals.size();
  for (size_t i = 0; is_equal && i < intervals.size(); ++i)
    is_equal = schedule.programs[i].size() == intervals[i].size();
  check(is_equal, "the measured intervals are not those of the schedule's programs");
}

}  // namespace

Costs measured_costs(const Schedule& schedule, const StageMap& map, const MeasuredIntervals& intervals) {
  check_sizes(schedule, intervals);
  Costs costs = Costs::uniform(map, 0, 0);
  const auto stages = static_cast<size_t>(map.stages());
  std::vector<double> input_s(stages);
  costs.bucket_share.resize(stages);
  for (int position = 0; position < map.positions(); ++position) {
    const std::vector<Action>& program = schedule.programs[at(position)];
    for (size_t i = 0; i < program.size(); ++i) {
      const Action& action = program[i];
      if (!is_compute(action.kind)) continue;
      const size_t stage = at(map.stage_of(position, action.chunk));
      const double took_s = length_s(intervals[at(position)][i]);
      (is_forward(action.kind) ? costs.forward_s : costs.backward_s)[stage] += took_s / schedule.micros;
      if (action.kind == ActionKind::backward_input) input_s[stage] += took_s / schedule.micros;
      if (action.bucket < 0) continue;
      std::vector<double>& shares = costs.bucket_share[stage];
      if (shares.size() <= at(action.bucket)) shares.resize(at(action.bucket) + 1);
      shares[at(action.bucket)] += took_s;
    }
  }
  for (size_t stage = 0; stage < stages; ++stage) {
    const bool is_halved = input_s[stage] > 0;
    costs.input_share.push_back(is_halved ? input_s[stage] / costs.backward_s[stage] : 0.5);
    double sum_s = 0;
    for (double share : costs.bucket_share[stage]) sum_s += share;
    for (double& share : costs.bucket_share[stage])
      share = sum_s > 0 ? share / sum_s : 1 / static_cast<double>(costs.bucket_share[stage].size());
  }
  return costs;
}

Report measured_report(const Schedule& schedule, const StageMap& map, const MeasuredIntervals& intervals) {
  check_sizes(schedule, intervals);
  const auto positions = at(map.positions());
  Report report{.is_complete = true,
                .busy_s = std::vector<double>(positions),
                .exposed_transfer_s = std::vector<double>(positions),
                .intervals = MeasuredIntervals(positions)};
  double first_s = std::numeric_limits<double>::infinity();
  for (size_t position = 0; position < positions; ++position) {
    for (size_t i = 0; i < intervals[position].size(); ++i) {
      if (is_compute(schedule.programs[position][i].kind))
        first_s = std::min(first_s, intervals[position][i].begin_s);
    }
  }
  double busy_s = 0;
  for (size_t position = 0; position < positions; ++position) {
    double now_s = 0;
    for (size_t i = 0; i < intervals[position].size(); ++i) {
      Interval interval{now_s, now_s};
      if (is_compute(schedule.programs[position][i].kind)) {
        interval = {intervals[position][i].begin_s - first_s, intervals[position][i].end_s - first_s};
        report.busy_s[position] += length_s(interval);
        now_s = interval.end_s;
      }
      report.intervals[position].push_back(interval);
    }
    busy_s += report.busy_s[position];
    report.step_s = std::max(report.step_s, now_s);
  }
  if (report.step_s > 0) report.bubble = 1 - busy_s / (report.step_s * map.positions());
  return report;
}

}  // namespace ptrain
