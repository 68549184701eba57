#include "parallel/plan/print.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "kernels/base/error.h"
#include "parallel/plan/svg.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

const ToySizes big{.V = 32'000, .C = 1024, .L = 32, .H = 32, .K = 32, .D = 32, .F = 2816};

Plan printed_plan(int tensor, int pipeline, int data, int64_t micros, const ToySizes& sizes = big) {
  const ParallelConfig parallel{.tensor = tensor,
                                .pipeline = pipeline,
                                .data = data,
                                .is_sequence_parallel = tensor > 1,
                                .global = micros * data,
                                .sequence_length = 1536,
                                .types = {.param = DType::bf16, .grad = DType::bf16}};
  Workload workload = toy_workload(sizes);
  workload.model_flops_per_token = 2e9;
  return make_plan(workload, parallel, parallel.tensor * parallel.pipeline * parallel.data);
}

void expect_lines(const std::string& text, const std::vector<std::string>& lines) {
  for (const std::string& line : lines) EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
}

TEST(Print, ShowsGridStagesMemoryScheduleAndTraffic) {
  expect_lines(
      print_plan(printed_plan(4, 2, 2, 4)),
      {"16 ranks = tensor 4 x pipeline 2 x data 2",
       "8 rows of 1,536 tokens a step (12,288 tokens); 4 micro-batches of 1 row on each of 2 data ranks",
       "weights bf16, gradients bf16, sums f32, master f32, moments f32",
       "schedule 1f1b, ZeRO 1, sequence parallelism on", "0 - 7", "8 - 15", "embedding, block 0 - ", ", head",
       "bubble", "equal stages: 20.0 %", "stage 0   F0 F1       B0 -- F2 B1 -- F3 B2 --    B3 --\n",
       "stage 1      F0 B0 -- F1 B1 -- F2 B2 -- F3 B3 --\n", "add --hardware NAME"});
}

TEST(Print, WithHardwareSaysTimesSourcesAndWhetherItFits) {
  const Plan plan = printed_plan(4, 2, 2, 4);
  expect_lines(print_plan(plan, {.hardware = hardware_of("h200")}),
               {"Estimate on 16 x h200, 8 a node", "tokens/s", "MFU", "leaves a node: pipeline",
                "Source: NVIDIA", "\nFits: the largest rank needs"});
  expect_lines(print_plan(plan, {.hardware = hardware_of("cpu:0.2")}),
               {"\nDOES NOT FIT: the largest rank needs"});
}

TEST(Print, AnOffloadedOptimizerIsCountedInHostMemory) {
  Plan plan = printed_plan(4, 2, 2, 4);
  EXPECT_EQ(print_plan(plan).find("host memory"), std::string::npos);
  plan.parallel.offload = Offload::optimizer;
  int64_t most = 0;  // of the first stage's ranks, whose table is cut unevenly
  for (int rank = 0; rank < 4; ++rank) most = std::max(most, host_ledger_of(plan, rank).total_bytes());
  expect_lines(print_plan(plan), {"optimizer in host memory", "in pinned host memory", "all of the host's",
                                  bytes_text(static_cast<double>(most))});
}

TEST(Print, TheCopyThatSavesAreWrittenFromIsCounted) {
  Plan plan = printed_plan(4, 2, 2, 4);
  EXPECT_EQ(print_plan(plan).find("copy of the state"), std::string::npos);
  plan.parallel.saves_behind = true;
  int64_t most = 0;
  for (int rank = 0; rank < 16; ++rank) most = std::max(most, snapshot_bytes(plan, rank));
  expect_lines(print_plan(plan),
               {"a copy of the state that saves are written from: " + bytes_text(static_cast<double>(most))});
}

TEST(Print, ActivationsAreShownSlotBySlotAndLibrariesApart) {
  // 4 micro-batches of 1536 rows on two stages: two slots on the first, one on the second.
  const Plan plan = printed_plan(4, 2, 2, 4);
  const double slot = static_cast<double>(ledger_of(plan, 0).bytes(MemoryKind::activations)) / 2;
  expect_lines(print_plan(plan, {.hardware = hardware_of("h200")}),
               {"a slot x slots", bytes_text(slot) + " x 2", "context and libraries, an estimate  ",
                "loading the model", "forward and backward", "reduction and update", "saving"});
}

ParallelConfig with_choice(ScheduleName schedule, int stages, int zero) {
  return {.pipeline = 2,
          .data = 2,
          .virtual_stages = stages,
          .schedule = schedule,
          .zero = zero,
          .global = 16,
          .sequence_length = 64};
}

TEST(Print, SaysTheFormulaOfTheScheduleAndWhatShardsSend) {
  struct Case {
    ParallelConfig parallel;
    std::vector<std::string> says;
  };
  const std::vector<Case> cases = {
      {with_choice(ScheduleName::one_f_one_b, 1, 1), {"equal stages: 11.1 %", "recompute none"}},
      {with_choice(ScheduleName::interleaved, 2, 1),
       {"interleaved, 2 stages a rank", "equal stages: 5.9 %", " x 2-4"}},
      {with_choice(ScheduleName::zero_bubble, 1, 1), {"zero_bubble (H1)", "equal stages: 4.0 %"}},
      {with_choice(ScheduleName::zero_bubble, 2, 1), {"zero_bubble (ZB-V)", "(by FLOPs)"}},
      {with_choice(ScheduleName::one_f_one_b, 1, 2),
       {"ZeRO 2 sums gradients after each of the 8 micro-batches; ZeRO 1 would send "}},
      {with_choice(ScheduleName::one_f_one_b, 1, 3),
       {"and gathers parameters for every forward and backward"}},
  };
  for (const Case& what : cases) {
    expect_lines(print_plan(make_plan(toy_workload(big), what.parallel, 4)), what.says);
  }
  // What ZeRO 1 would send is what it sends.
  const Plan one = make_plan(toy_workload(big), with_choice(ScheduleName::one_f_one_b, 1, 1), 4);
  int64_t most = 0;
  for (int rank : typical_ranks(one)) most = std::max(most, traffic_of(one, rank).data.bytes);
  expect_lines(print_plan(make_plan(toy_workload(big), with_choice(ScheduleName::one_f_one_b, 1, 2), 4)),
               {"ZeRO 1 would send " + bytes_text(static_cast<double>(most))});
}

TEST(Print, TheChoiceAndItsReasonAreShown) {
  PrintOptions options;
  options.why = "parallel.schedule auto: 1f1b, because";
  expect_lines(print_plan(printed_plan(4, 2, 2, 4), options),
               {"chosen   parallel.schedule auto: 1f1b, because"});
}

TEST(Print, AThousandRanksAreShownAtOnceAndNoLineIsTooLong) {
  const auto begin = std::chrono::steady_clock::now();
  for (const Plan& plan :
       {printed_plan(8, 16, 8, 128), printed_plan(8, 32, 4, 512), printed_plan(1, 1, 1024, 64)}) {
    const std::string text = print_plan(plan, {.hardware = hardware_of("a100-80"), .columns = 100});
    const size_t schedule = text.find("\nSchedule"), end = text.find("\n\nSent");
    for (size_t at = schedule + 1; at < end;) {
      const size_t next = text.find('\n', at);
      EXPECT_LE(next - at, 102u) << text.substr(at, next - at);
      at = next + 1;
    }
  }
  // The goal is 2 s each; ten times that says that it does not hang.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(Print, CommasSeparateThousands) {
  const std::vector<std::pair<int64_t, const char*>> cases = {
      {0, "0"},         {999, "999"}, {1000, "1,000"}, {123456, "123,456"}, {12345678, "12,345,678"},
      {-1000, "-1,000"}};
  for (const auto& [number, text] : cases) EXPECT_EQ(with_commas(number), text);
}

int count_of(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(Svg, HasABarForEveryComputeActionAndEscapesItsTitle) {
  const Plan plan = printed_plan(1, 3, 1, 4);
  const std::string text = svg_of(plan.schedule, plan.map, plan.report, "a < b & c");
  int computed = 0;
  for (const auto& program : plan.schedule.programs) {
    for (const Action& action : program) computed += is_compute(action.kind);
  }
  EXPECT_EQ(count_of(text, "<title>"), computed);
  EXPECT_EQ(count_of(text, "<g>"), count_of(text, "</g>"));
  EXPECT_EQ(count_of(text, "<text"), count_of(text, "</text>"));
  EXPECT_NE(text.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_TRUE(text.starts_with("<svg") && text.ends_with("</svg>\n"));
}

TEST(Svg, AVeryLongScheduleShowsItsBeginningAndSaysSo) {
  const StageMap map(16);
  const Schedule schedule = one_f_one_b(map, 2000);
  const std::string text = svg_of(schedule, map, simulate(schedule, map, Costs::uniform(map, 1, 2)), "long");
  EXPECT_EQ(count_of(text, "<title>"), 20'000);
  EXPECT_NE(text.find("the first 20000 actions"), std::string::npos);
}

}  // namespace
}  // namespace ptrain
