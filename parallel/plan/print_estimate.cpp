#include "parallel/plan/print_estimate.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "parallel/plan/print.h"
#include "parallel/plan/print_text.h"
#include "parallel/plan/text_table.h"

namespace ptrain {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string times_text(const Estimate& estimate) {
  const Report& report = estimate.report;
  TextTable table;
  const auto of_step = [&](double seconds) { return percent(seconds / estimate.step_s); };
  const auto add = [&](const char* name, double seconds) {
    table.add({name, seconds_text(seconds), of_step(seconds)});
  };
  add("step", estimate.step_s);
  add("  forward and backward", report.step_s - report.exposed_reduce_s);
  table.add({"    of it bubble", percent(estimate.bubble)});
  add("  reductions not hidden", report.exposed_reduce_s);
  add("  parameters gathered, not hidden", estimate.gather_s);
  add("  update", estimate.update_s);
  add("communication that nothing hides", estimate.exposed_s);
  add("  tensor collectives", estimate.tensor_s);
  add("  waiting for other stages' messages", estimate.transfer_s);
  add("  sums over data ranks, gathered parameters", estimate.data_s);
  table.add({"speed", with_commas(static_cast<int64_t>(estimate.tokens_per_s)) + " tokens/s"});
  table.add({"MFU", percent(estimate.mfu)});
  return table.text();
}

/// The price in time of sums that no grid changes.
std::string invariance_text(const Plan& plan, const Hardware& hardware, double step_s) {
  if (!plan.parallel.is_grid_invariant) return {};
  ParallelConfig plain = plan.parallel;
  plain.is_grid_invariant = false;
  const double plain_s = estimate_of(make_plan(plan.workload, plain, plan.mesh.world()), hardware).step_s;
  return fmt::format(
      "  Sums that no grid changes: {} in time, and what products in fixed tiles cost, which is not "
      "estimated.\n",
      signed_percent(step_s / plain_s - 1));
}

std::string outside_text(const Crossing& crosses) {
  std::string outside;
  for (const auto& [crosses_axis, name] :
       {std::pair(crosses.tensor, "tensor"), {crosses.data, "data"}, {crosses.pipeline, "pipeline"}}) {
    if (crosses_axis) outside += (outside.empty() ? "" : ", ") + std::string(name);
  }
  return outside.empty() ? "nothing leaves a node" : "leaves a node: " + outside;
}

}  // namespace

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::string signed_percent(double share) {
  return fmt::format("{:+.1f} %", 100 * share);
}

std::string seconds_text(double seconds) {
  if (seconds >= 1) return fmt::format("{:.2f} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.1f} ms", 1e3 * seconds);
  return fmt::format("{:.0f} us", 1e6 * seconds);
}

std::string print_estimate(const Plan& plan, const Hardware& hardware) {
  const Estimate estimate = estimate_of(plan, hardware);
  std::string text = fmt::format("\nEstimate on {} x {}, {} a node\n", plan.mesh.world(), hardware.name,
                                 std::min(hardware.ranks_per_node, plan.mesh.world())) +
                     times_text(estimate);
  text += fmt::format(
      "  Assumed: products reach {:.0f} % of {:.4g} TFLOP/s; collectives {:.0f} % of {:.1f} GB/s inside a "
      "node "
      "and\n  {:.0f} % of {:.2f} GB/s a rank between nodes ({}).\n"
      "  FLOPs per token as the model counts them: {:.4g} (6 * matmul parameters + attention).\n"
      "  Source: {}.\n",
      100 * hardware.reachable, hardware.peak_flops / 1e12, 100 * hardware.links_reach,
      hardware.link_bytes_per_s / 1e9, 100 * hardware.network_reaches, hardware.network_bytes_per_s / 1e9,
      outside_text(crossing_of(plan.mesh, hardware.ranks_per_node)), plan.workload.model_flops_per_token,
      hardware.source);
  text += invariance_text(plan, hardware, estimate.step_s);
  const double most = estimate.most_bytes + static_cast<double>(hardware.reserved_bytes);
  text += fmt::format("\n{}: the largest rank needs {} + about {} for context and libraries = {} of {}\n",
                      estimate.does_fit ? "Fits" : "DOES NOT FIT", bytes_text(estimate.most_bytes),
                      bytes_text(static_cast<double>(hardware.reserved_bytes)), bytes_text(most),
                      bytes_text(static_cast<double>(hardware.memory_bytes)));
  return text;
}

std::string print_advice(const Advice& advice, const Hardware& hardware, double before_s) {
  if (advice.changes.empty()) {
    if (advice.ranks == 0)
      return "  Nothing near it fits, and no number of ranks that was tried: choose hardware with more "
             "memory.\n";
    return fmt::format("  Nothing near it fits; {} ranks of {} would do: --ranks {} {}\n", advice.ranks,
                       hardware.name, advice.ranks, joined(advice.options_there));
  }
  TextTable table;
  for (const Change& change : advice.changes) {
    std::string note;
    if (change.judged.parallel.recompute_blocks < all_blocks &&
        change.judged.parallel.recompute == Recompute::full)
      note = recompute_text(change.judged.parallel);
    table.add({joined(change.options), bytes_text(change.judged.bytes),
               seconds_text(change.judged.step_s) + " a step",
               signed_percent(change.judged.step_s / before_s - 1), note});
  }
  return fmt::format("What would fit, with its price in time ({}):\n",
                     advice.changes.size() == 1 ? "the only one found" : "the cheapest first") +
         table.text({true, false, false, false, true});
}

}  // namespace ptrain
