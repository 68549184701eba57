// What a run does about a step that was not finite: says who is to blame, skips it, goes back, or stops. The
// decision itself is judge.h's.
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <set>

#include "kernels/base/host_name.h"
#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "src/train/host_state.h"
#include "src/train/lr.h"
#include "src/train/run.h"

namespace ptrain {
namespace {

/// Where the documents of rows [rows) of a step come from, at most a dozen, each once.
std::string documents_of(const RunData& data, int64_t step, Range rows) {
  constexpr size_t most = 12;
  std::vector<std::string> names;
  std::set<int64_t> samples;
  for (int64_t row = rows.begin; row < rows.end(); ++row) {
    for (const Part& part : data.batches->parts(step, row)) samples.insert(part.sample);
  }
  for (const int64_t sample : samples) {
    if (names.size() == most) break;
    names.push_back(data.dataset->name(sample));
  }
  const std::string more = samples.size() > most ? fmt::format(" and {} more", samples.size() - most) : "";
  return fmt::format("{}{}", fmt::join(names, ", "), more);
}

/// The rows of a step that a rank of the data axis had in a micro-batch; what is not known (-1) is all.
Range rows_of(const BatchGeometry& geometry, int data, int micro) {
  if (data < 0) return {0, geometry.global};
  const Range own{data * geometry.micros() * geometry.micro, geometry.micros() * geometry.micro};
  return micro < 0 ? own : Range{own.begin + micro * geometry.micro, geometry.micro};
}

}  // namespace

/// In words: what was not finite first, where, and which documents were read there.
std::string Run::blame(const StepResult& result) {
  const FaultSite site = trainer_->find_fault(result);
  const int rank = std::max(site.rank, 0);
  const std::string where =
      fmt::format("rank {} (host {})", rank,
                  environment_.hosts.empty() ? host_name() : environment_.hosts[static_cast<size_t>(rank)]);
  const std::string micro = site.micro < 0 ? "" : fmt::format(" in micro-batch {}", site.micro);
  const auto documents = [&]() -> std::string {
    if (!is_first()) return "";  // who does not speak
    return documents_of(training_, result.step,
                        rows_of(training_.batches->geometry(), site.data, site.micro));
  };
  using enum FaultSite::What;
  switch (site.what) {
    case weight:
      return fmt::format("the weights are damaged, first {} on {}", site.tensor, where);
    case first_moment:
    case second_moment:
      return fmt::format("the optimizer's moments are damaged, first those of {} on {}", site.tensor, where);
    case loss:
      return fmt::format("first the loss on {}{}; documents there: {}", where, micro, documents());
    case gradient:
      return fmt::format("first the gradient of {} on {}{}; documents there: {}", site.tensor, where, micro,
                         documents());
    case nothing:
      break;
  }
  return fmt::format(
      "computed again it is finite, so neither data nor weights are to blame: look for a faulty machine; "
      "documents of the step: {}",
      documents());
}

/// The step, or nothing of it where its rows are to be passed over.
StepResult Run::take_step(int64_t step) {
  if (!judge_.passes_over(step)) return trainer_->step(*training_.batches, step, steps_);
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  return {.step = step,
          .loss = none,
          .grad_norm = none,
          .learning_rate = learning_rate(config_.optimizer, step, steps_),
          .outcome = Outcome::passed_over};
}

/// True where the run has gone back and goes on after done_steps_.
bool Run::goes_back(const StepResult& result) {
  const Verdict verdict = judge_.judge(result.step, result.outcome);
  if (verdict == Verdict::go_on) return false;
  const std::string what = fmt::format("step {}: loss {}, gradient norm {}: not finite; {}", result.step,
                                       result.loss, result.grad_norm, blame(result));
  if (verdict == Verdict::stop) {
    finish_save();  // of a state from before
    agreed(world_, [&] {
      fail(ExitCode::numerical,
           "{}. The weights are as before this step{}. Look at these documents, lower "
           "optimizer.learning_rate, "
           "or set data aside and start again from a checkpoint",
           what,
           config_.train.max_bad_steps == 0 ? "" : ", and going back to the last snapshot did not help");
    });
  }
  if (is_first()) log::warn("{}; skipped, nothing was changed", what);
  if (verdict == Verdict::skip) return false;
  go_back(fmt::format("{} steps in a row were not finite", judge_.bad_steps().size()));
  return true;
}

/// What would be saved is not finite on some rank: goes back instead, and on after done_steps_.
void Run::leave_damaged_state(int64_t step) {
  const StepResult none{.step = step};  // without tokens: nothing is computed again
  const std::string what = fmt::format("after step {}: {}", step, blame(none));
  if (judge_.judge_damaged_state(step) == Verdict::stop) {
    agreed(world_, [&] {
      fail(ExitCode::numerical,
           "{}, and going back to the last snapshot did not help; what is saved is older and finite. Lower "
           "optimizer.learning_rate, or set optimizer.clip_grad_norm",
           what);
    });
  }
  if (is_first()) log::warn("{}; it is not saved", what);
  go_back("the state is not finite");
}

void Run::go_back_to_files() {
  done_steps_ = 0;
  newest_step_ = step_;
  progress_.skipped_steps = 0;
  trainer_->set_updates(0);
  trainer_->loss_scale().restore(LossScale::first, 0);
  {
    HostState state(*trainer_);
    state.get();
    for (const Tensor& moments : {state.m(), state.v()}) std::ranges::fill(moments.span<float>(), 0.f);
    state.put();
  }
  resume();
}

/// To the copy in memory, which may be of a step that no disk could take; else to the newest checkpoint, or
/// to the weights that the run began with.
void Run::go_back(std::string_view why) {
  enter("going back to a snapshot");
  finish_save();
  const bool is_in_memory = snapshot_ && snapshot_->is_taken();
  if (is_in_memory) {
    snapshot_->put_back();
    go_on_after(snapshot_->step(), run_of_snapshot_);
  } else {
    go_back_to_files();
  }
  if (is_first())
    log::warn("{}: goes back from step {} to step {}{}", why, step_, done_steps_,
              is_in_memory ? ", by the copy in memory" : "");
  agreed(world_, [&] {
    metrics_ = {};
    if (is_first()) metrics_ = MetricsFile(output_ / "metrics.jsonl", done_steps_);
  });
  enter("training");
}

/// Warns, and changes nothing.
void Run::watch_for_spikes(const StepResult& result) {
  if (result.is_skipped() || !is_first()) return;
  if (const auto spike = loss_watch_.look(result.loss))
    log::warn(
        "step {}: loss {:.4f}, {:.0f} robust standard deviations above the median {:.4f} of the last {} "
        "steps",
        result.step, spike->value, spike->score, spike->median, spike->window);
  if (const auto spike = norm_watch_.look(std::log(result.grad_norm + 1e-30)))
    log::warn("step {}: gradient norm {:.4g}, {:.0f} times the median {:.4g} of the last {} steps",
              result.step, result.grad_norm, std::exp(spike->value - spike->median), std::exp(spike->median),
              spike->window);
}

uint64_t Run::imbalance_of_replicas() {
  if (world_.size() == 1) return 0;
  enter("comparing replicas");
  const PhaseSpan phase(tracer(), "replicas");
  if (!replica_check_) replica_check_.emplace(*trainer_, world_);
  const uint64_t imbalance = replica_check_->imbalance();
  enter("training");
  return imbalance;
}

/// Errors: numerical, always.
void Run::name_replicas_that_differ() {
  finish_save();  // what is under way was compared before it was taken
  enter("comparing replicas");
  const std::optional<ReplicaFault> fault = replica_check_->find();
  agreed(world_, [&] {
    check(fault.has_value(), "checksums of replicas do not add up, but each is equal");
    fail(
        ExitCode::numerical,
        "after step {}: {}. They were the same until now: a fault of memory or arithmetic there. Leave that "
        "host out; the same command goes on from the last checkpoint, which was compared before it was saved",
        step_, to_string(*fault, *plan_, environment_.hosts));
  });
}

}  // namespace ptrain
