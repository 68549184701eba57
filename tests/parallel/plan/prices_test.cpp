#include "parallel/plan/prices.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

const ToySizes priced_sizes{.V = 32'000, .C = 1024, .L = 16, .H = 16, .K = 16, .D = 64, .F = 2816};

Workload workload() {
  Workload workload = toy_workload(priced_sizes);
  for (const Unit& unit : workload.units) {
    workload.model_flops_per_token += unit.forward_flops + unit.backward_flops;
  }
  return workload;
}

Plan priced_plan(const ParallelConfig& parallel) {
  return make_plan(workload(), parallel, parallel.tensor * parallel.pipeline * parallel.data);
}

Price price_of(const char* name, double per_hour) {
  return {.name = name, .kind = instance_kind_of(name), .per_hour = per_hour};
}

TEST(Prices, EveryOfferAddsUpAndTheCheapestComesFirst) {
  const Workload model = workload();
  const GuideRequest request{
      .from = {.global = 64, .sequence_length = 512}, .workload = &model, .ranks = 16, .tokens = 1e9};
  const std::vector<Price> prices = {price_of("p5.48xlarge", 100), price_of("p4d.24xlarge", 30),
                                     price_of("ml.g5.12xlarge", 5)};
  const std::vector<Offer> offers = buying_guide(request, prices, make);
  ASSERT_GE(offers.size(), 3u);
  double before = 0;
  for (const Offer& offer : offers) {
    const ParallelConfig& parallel = offer.judged.parallel;
    EXPECT_TRUE(offer.judged.does_fit);
    EXPECT_EQ(parallel.tensor * parallel.pipeline * parallel.data, offer.instances * offer.price.kind.gpus);
    EXPECT_NEAR(offer.tokens_per_s, 64 * 512 / offer.judged.step_s, 1e-6 * offer.tokens_per_s);
    EXPECT_NEAR(offer.hours, 1e9 / offer.tokens_per_s / 3600, 1e-9 * offer.hours);
    EXPECT_NEAR(offer.cost, offer.hours * offer.instances * offer.price.per_hour, 1e-9 * offer.cost);
    EXPECT_GE(offer.cost, before);
    before = offer.cost;
  }
  // Sixteen GPUs of every kind are there too: 2, 2 and 4 instances.
  for (const auto& [name, instances] :
       {std::pair("p5.48xlarge", 2), {"p4d.24xlarge", 2}, {"ml.g5.12xlarge", 4}}) {
    EXPECT_TRUE(std::ranges::any_of(offers, [&](const Offer& offer) {
      return offer.price.name == name && offer.instances == instances;
    })) << name;
  }
}

TEST(Prices, ADoubledPriceDoublesTheCostAndNothingElse) {
  const Workload model = workload();
  const GuideRequest request{
      .from = {.global = 64, .sequence_length = 512}, .workload = &model, .ranks = 8, .tokens = 1e9};
  const std::vector<Offer> once = buying_guide(request, std::vector{price_of("p4d.24xlarge", 10)}, make);
  const std::vector<Offer> twice = buying_guide(request, std::vector{price_of("p4d.24xlarge", 20)}, make);
  ASSERT_EQ(once.size(), twice.size());
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_DOUBLE_EQ(twice[i].cost, 2 * once[i].cost);
    EXPECT_EQ(twice[i].instances, once[i].instances);
    EXPECT_DOUBLE_EQ(twice[i].tokens_per_s, once[i].tokens_per_s);
  }
}

TEST(Prices, WhatNeverFitsIsSaidLast) {
  const Workload model = workload();
  const GuideRequest request{
      .from = {.global = 64, .sequence_length = 512}, .workload = &model, .ranks = 8, .tokens = 1e9};
  const PlanMaker only_large = [](const ParallelConfig& parallel) {
    check(parallel.tensor == 8, ExitCode::usage, "too small");
    return priced_plan(parallel);
  };
  const std::vector<Price> prices = {price_of("g6.12xlarge", 1), price_of("p4d.24xlarge", 10)};
  const std::vector<Offer> offers = buying_guide(request, prices, only_large);
  EXPECT_EQ(offers.front().price.name, "p4d.24xlarge");
  EXPECT_EQ(offers.back().price.name, "g6.12xlarge");
  EXPECT_FALSE(offers.back().judged.does_fit);
  const std::string text = print_guide(request, offers, "an epoch of 1,000,000,000 tokens");
  for (const char* part : {"Buying guide: toy, by the cost of an epoch of 1,000,000,000 tokens",
                           "1 x p4d.24xlarge", "8 x a100-40", "tensor 8 x pipeline 1 x data 1, 1f1b, ZeRO 1",
                           "g6.12xlarge", "does not fit on up to 4096 GPUs"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace ptrain
