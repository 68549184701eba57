#include "parallel/plan/svg_compare.h"

#include "kernels/base/error.h"
#include "parallel/plan/svg.h"

namespace ptrain {
namespace {

std::string length_and_bubble(const Report& report) {
  return fmt::format("{:.4g} s, bubble {:.1f} %", report.step_s, 100 * report.bubble);
}

}  // namespace

std::string svg_of_plan_and_run(const Plan& plan, int64_t step, const MeasuredIntervals& measured) {
  const Report planned = simulate(plan.schedule, plan.map, measured_costs(plan.schedule, plan.map, measured));
  const Report run = measured_report(plan.schedule, plan.map, measured);
  const SvgPanel panels[] = {
      {fmt::format("{}, {}, {}, {} micro-batches: simulated with the measured forwards and backwards: {}",
                   plan.workload.name, to_string(plan.mesh), plan.schedule.name, plan.micros,
                   length_and_bubble(planned)),
       &planned},
      {fmt::format("step {}, data rank 0, tensor rank 0, measured: {}", step, length_and_bubble(run)), &run}};
  return svg_of_panels(plan.schedule, plan.map, panels);
}

}  // namespace ptrain
