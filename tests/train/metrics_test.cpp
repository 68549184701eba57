// The lines that a run shows: of a step, of its end, and the one on a terminal.
#include "src/train/metrics.h"

#include <gtest/gtest.h>

namespace ptrain {
namespace {

StepResult result_of(int64_t step) {
  return {.step = step, .loss = 2.5, .grad_norm = 0.123, .learning_rate = 3e-4, .tokens = 4096, .step_s = 2};
}

RunProgress progress_of(int64_t steps) {
  return {.steps = steps,
          .peak_memory_bytes = int64_t{80} << 30,
          .flops_per_token = 4e10,
          .peak_flops = 1e15,
          .seconds_left = 4000};
}

TEST(Metrics, AStepLineIsShorterThan200ColumnsAndHasNoReturn) {
  const std::string line = step_line(result_of(999'999'999), progress_of(1'000'000'000));
  EXPECT_LT(line.size(), 200u);
  EXPECT_EQ(line.find('\r'), std::string::npos);
  EXPECT_EQ(
      line,
      "step 999999999/1000000000  loss 2.5000  norm 0.123  lr 3.00e-04  2048 tokens/s  mfu 8.2 %  80.00 GiB  "
      "left 1:06:40");
}

TEST(Metrics, TheSummaryNamesTheLastLossAndTheMean) {
  RunProgress progress = progress_of(50);
  progress.first_step = 21, progress.loss_sum = 90, progress.losses = 30, progress.tokens = 122'880;
  progress.seconds = 60;
  EXPECT_EQ(summary_line(result_of(50), progress),
            "steps 21 to 50: loss 2.5000 in the last step, 3.0000 in the mean of all 30; 122880 tokens in "
            "1:00, 2048 "
            "tokens/s");
}

TEST(Metrics, ALiveLineFitsItsTerminalAndItsBarGrows) {
  for (int columns = 10; columns <= 200; ++columns)
    EXPECT_LE(std::ssize(live_line(result_of(500), progress_of(1000), columns)), columns) << columns;
  EXPECT_EQ(live_line(result_of(500), progress_of(1000), 100),
            "[############.............]  500/1000  loss 2.5000  left 1:06:40  2048 tokens/s  mfu 8.2 %");
  EXPECT_EQ(live_line(result_of(1000), progress_of(1000), 40), "1000/1000  loss 2.5000  left 1:06:40");
}

}  // namespace
}  // namespace ptrain
