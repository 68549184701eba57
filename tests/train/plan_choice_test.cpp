// What a run chooses for itself, and the file of prices.
#include "src/train/plan_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/config_load.h"
#include "src/train/price_file.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

ModelSpec model() {
  ModelSpec spec;
  spec.V = 4000, spec.C = 256, spec.L = 8, spec.H = 8, spec.K = 8, spec.D = 32, spec.F = 704;
  spec.max_positions = 512;
  return spec;
}

Config with(const std::string& text) {
  Config config = load_config_text(text, "test", {}).config;
  config.data.sequence_length = 256;
  return config;
}

constexpr Compute on_cpu{.device = DeviceKind::cpu, .precision = Config::Precision::fp32};

TEST(PlanChoice, AutoIsWhatIsOpen) {
  EXPECT_FALSE(open_of(with("")).is_any());
  EXPECT_TRUE(open_of(with("parallel: {schedule: auto}")).is_schedule);
  EXPECT_FALSE(open_of(with("parallel: {schedule: auto}")).is_recompute);
  EXPECT_TRUE(open_of(with("train: {recompute: auto}")).is_recompute);
}

TEST(PlanChoice, PlansOfOtherGridsHaveTheirOwnWorldAndSequenceParallelism) {
  const ModelSpec spec = model();
  for (const auto& [text, is_on] : {std::pair("", true),
                                    {"parallel: {sequence_parallel: true}", true},
                                    {"parallel: {sequence_parallel: false}", false}}) {
    const Config config = with(text);
    const PlanMaker make = plan_maker(config, spec, on_cpu, "there are");
    ParallelConfig parallel = parallel_config(config, 1, on_cpu.precision);
    EXPECT_FALSE(make(parallel).parallel.is_sequence_parallel) << "nothing to cut";
    parallel.tensor = parallel.pipeline = 2;
    const Plan plan = make(parallel);
    EXPECT_EQ(plan.mesh.world(), 4);
    EXPECT_EQ(plan.parallel.is_sequence_parallel, is_on) << text;
  }
}

TEST(PlanChoice, LayersAreCutInStripsWhereAGpusTensorGroupHasRowsForTwo) {
  const ModelSpec spec = model();
  const auto strips = [&](const std::string& text, int tensor, int64_t micro, const Compute& compute) {
    Config config = with(text);
    config.parallel.tensor = tensor;
    config.batch.micro = config.batch.global = micro;
    return plan_of(config, spec, tensor, compute).parallel.tensor_strips;
  };
  const int64_t tokens = with("").data.sequence_length;
  const int64_t enough = (2048 + tokens - 1) / tokens, few = 2047 / tokens;
  const Compute gpu{.device = DeviceKind::cuda, .precision = Config::Precision::bf16};
  const Compute fp8{.device = DeviceKind::cuda, .precision = Config::Precision::fp8};
  EXPECT_EQ(strips("", 2, enough, gpu), 2);
  EXPECT_EQ(strips("", 2, few, gpu), 1);
  EXPECT_EQ(strips("", 1, enough, gpu), 1);
  EXPECT_EQ(strips("", 2, enough, on_cpu), 1);
  // What is asked for is done, or refused.
  EXPECT_EQ(strips("parallel: {tensor_strips: 3}", 2, few, on_cpu), 3);
  EXPECT_EQ(strips("parallel: {tensor_strips: 1}", 2, enough, gpu), 1);
  try {
    strips("parallel: {tensor_strips: 2}", 2, enough, fp8);
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("would quantise the weights again"), std::string::npos);
  }
}

TEST(PlanChoice, AChosenPlanFitsWhatARankMayHoldAndSaysWhy) {
  const ModelSpec spec = model();
  const Config config =
      with("train: {recompute: auto}\nparallel: {schedule: auto, pipeline: 2}\nbatch: {global: 8}");
  const ChosenPlan roomy = chosen_plan(config, spec, 2, on_cpu, ideal_hardware(std::nullopt));
  EXPECT_EQ(roomy.plan.parallel.recompute, Recompute::none);
  EXPECT_NE(roomy.plan.parallel.schedule, ScheduleName::gpipe);
  EXPECT_NE(roomy.why.find("parallel.schedule auto: "), std::string::npos) << roomy.why;
  EXPECT_NE(roomy.why.find("train.recompute auto: none"), std::string::npos) << roomy.why;
  // A byte less than the plainest schedule without recompute holds.
  Config plain = config;
  plain.parallel.schedule = Config::Schedule::one_f_one_b;
  plain.train.recompute = Config::Recompute::none;
  const auto most = [](const Plan& plan) {
    return std::max(ledger_of(plan, 0).total_bytes(), ledger_of(plan, 1).total_bytes());
  };
  const int64_t room = most(plan_of(plain, spec, 2, on_cpu)) - 1;
  const ChosenPlan tight = chosen_plan(config, spec, 2, on_cpu, ideal_hardware(room));
  EXPECT_LE(most(tight.plan), room) << tight.why;
  // Nothing open: the plan of the configuration, and nothing to say.
  const ChosenPlan fixed = chosen_plan(plain, spec, 2, on_cpu, ideal_hardware(1));
  EXPECT_EQ(fixed.plan.parallel.schedule, ScheduleName::one_f_one_b);
  EXPECT_EQ(fixed.why, "");
}

TEST(PlanChoice, RanksAgreeOnTheLeastMemoryAndRanksOfAHostShareIt) {
  const Device cpu;
  std::mutex mutex;
  std::set<int64_t> alone, shared, none;
  run_ranks(3, [&](Communicator& world) {
    const std::vector<std::string> apart = {"a", "b", "c"}, two_together = {"a", "b", "a"};
    const auto of_each = memory_of_ranks(world, cpu, on_cpu, apart);
    const auto of_two = memory_of_ranks(world, cpu, on_cpu, two_together);
    const auto of_three = memory_of_ranks(world, cpu, on_cpu, {});
    const Compute gpu{.device = DeviceKind::cuda};
    EXPECT_FALSE(memory_of_ranks(world, cpu, gpu, apart)) << "a run for GPUs, looked at on a CPU";
    const std::lock_guard lock(mutex);
    alone.insert(of_each.value());
    shared.insert(of_two.value());
    none.insert(of_three.value());
  });
  ASSERT_EQ(alone.size(), 1u);
  ASSERT_EQ(shared.size(), 1u);
  ASSERT_EQ(none.size(), 1u);
  EXPECT_GT(*alone.begin(), 0);
  EXPECT_EQ(*shared.begin(), *alone.begin() / 2);
  EXPECT_EQ(*none.begin(), *alone.begin() / 3);
}

TEST(PlanChoice, MemoryIsAskedForOnlyWhereSomethingIsOpen) {
  run_ranks(1, [&](Communicator& world) {
    const int64_t unknown = ideal_hardware(std::nullopt).memory_bytes;
    EXPECT_EQ(room_of_ranks(world, Device(), with("device: cpu"), {}).memory_bytes, unknown);
    EXPECT_LT(room_of_ranks(world, Device(), with("device: cpu\ntrain: {recompute: auto}"), {}).memory_bytes,
              unknown);
  });
}

class PriceFile : public testing::Test {
 protected:
  std::vector<Price> read(const std::string& text) {
    write_text(directory_.path() / "prices.yaml", text);
    return read_prices(directory_.path() / "prices.yaml");
  }

 private:
  const TemporaryDirectory directory_;
};

TEST_F(PriceFile, IsAMapInYamlOrJson) {
  for (const char* text : {"# an hour\np4d.24xlarge: 12.5\nml.g5.48xlarge: 8\n",
                           "{\"p4d.24xlarge\": 12.5, \"ml.g5.48xlarge\": 8}"}) {
    const std::vector<Price> prices = read(text);
    ASSERT_EQ(prices.size(), 2u);
    EXPECT_EQ(prices[0].kind.name, "p4d.24xlarge");
    EXPECT_EQ(prices[0].per_hour, 12.5);
    EXPECT_EQ(prices[1].name, "ml.g5.48xlarge");
    EXPECT_EQ(prices[1].kind.hardware, "a10g");
    EXPECT_EQ(prices[1].per_hour, 8);
  }
}

TEST_F(PriceFile, WhatIsWrongIsSaidWithItsPlace) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"p4d.24xlarge: 12\np9.huge: 3\n",
       "prices.yaml:2:1: the instance kind p9.huge is not known; known are p5en"},
      {"p4d.24xlarge: free\n", "prices.yaml:1:15: the price of p4d.24xlarge must be a number above zero"},
      {"p4d.24xlarge: -1\n", ":1:15: the price of p4d.24xlarge must be"},
      {"p4d.24xlarge: 0\n", "above zero"},
      {"p4d.24xlarge: nan\n", "above zero"},
      {"p4d.24xlarge: \"12\"\n", "above zero"},
      {"p4d.24xlarge: {hour: 12}\n", "above zero"},
      {"p4d.24xlarge:\n", "above zero"},
      {"p4d.24xlarge: 1\np4d.24xlarge: 2\n", "appears twice"},
      {"- p4d.24xlarge\n", "prices are a map from instance kinds"},
      {"", "prices are a map from instance kinds"},
  };
  for (const auto& [text, says] : cases) {
    try {
      read(text);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage) << error.what();
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos)
          << error.what() << "\nexpected: " << says;
    }
  }
}

}  // namespace
}  // namespace ptrain
