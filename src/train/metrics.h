// What a step tells: the row of metrics.jsonl and the line for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "parallel/comm/communicator.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// What became of a step; only the first changed the model.
enum class Outcome {
  updated,
  no_supervision,  // no token was supervised
  scale_overflow,  // fp16: the loss scale was too large and has been halved
  not_finite,      // loss or gradients were NaN, infinite or beyond largest_norm
  passed_over,     // its rows were left out, see judge.h
};

/// One optimizer step, over the whole mesh.
struct StepResult {
  int64_t step = 0;      // from 1
  double loss = 0;       // nats per supervised token, before the update
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t supervised_tokens = 0;
  int64_t tokens = 0;         // not padding
  int64_t padded_tokens = 0;  // all positions of the batch
  double step_s = 0;
  double exposed_communication =
      0;  // share of step_s in which this rank waited for messages and collectives; NaN: not known (GPUs)
  Outcome outcome = Outcome::updated;
  double loss_scale = 1;  // of the step after this one; fp16 alone moves it

  bool is_skipped() const { return outcome != Outcome::updated; }
};

/// Throws (numerical) where the step's loss or gradients were not finite: for who has no better answer.
void check_finite(const StepResult& result);

/// What surrounds a step.
struct RunProgress {
  int64_t first_step = 1;         // of this start
  int64_t steps = 0;              // of the whole run
  int64_t skipped_steps = 0;      // so far
  int64_t peak_memory_bytes = 0;  // largest resident set of a rank
  double checkpoint_stall_s = 0;  // in this step
  double flops_per_token = 0;
  std::optional<double> peak_flops;  // of all ranks together; unknown: no MFU
  double seconds_left = 0;
  // Over the steps of this start that had a loss:
  double loss_sum = 0;
  int64_t losses = 0;
  int64_t tokens = 0;
  double seconds = 0;
};

/// A collective: the largest resident set of a rank; of GPUs what is taken of their memory, by everybody.
int64_t peak_memory_bytes(Communicator& world, Device device);
/// A collective: the mean of what all ranks give; NaN where one gives it.
double mean_over(Communicator& world, double value);

/// result.exposed_communication as the mean over ranks.
Json metrics_row(const StepResult& result, const RunProgress& progress, double time);
/// "1:06:40", "0:05"
std::string clock_text(double seconds);
std::string step_line(const StepResult& result, const RunProgress& progress);
/// What is over when a run ends: "steps 1 to 50: loss 1.2345 in the last, 2.3456 in the mean; …".
std::string summary_line(const StepResult& last, const RunProgress& progress);
/// A line that replaces itself on a terminal, at most `columns` wide, without a newline: a bar, then what of
/// step_line has room.
std::string live_line(const StepResult& result, const RunProgress& progress, int columns);
std::optional<double> model_flops_utilisation(const StepResult& result, const RunProgress& progress);

}  // namespace ptrain
