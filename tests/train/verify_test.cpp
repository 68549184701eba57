// The whole comparison on ranks: that all plans agree, and that planted faults are found by name.
#include "src/train/verify.h"

#include <algorithm>

#include "parallel/comm/thread_comm.h"
#include "tests/train/tiny_case.h"

namespace ptrain {
namespace {

using AfterStep = std::function<void(const Variant&, int, Trainer&)>;

struct Outcome {
  std::vector<VariantReport> reports;
  std::vector<std::string> lines;
};

Outcome verify_on(int ranks, const LoadedConfig& loaded, size_t most, const AfterStep& after_step = {},
                  std::optional<int64_t> rank_bytes = {}) {
  Outcome outcome;
  run_thread_ranks(ranks, [&](Communicator& world) {
    VerifyRequest request{.most = most,
                          .say = [&](std::string_view line) { outcome.lines.emplace_back(line); }};
    request.after_step = after_step;
    request.rank_bytes = rank_bytes;
    const auto reports = verify_run(loaded, request, world, Context{});
    if (world.rank() == 0) outcome.reports = reports;
  });
  return outcome;
}

std::string differences(const Outcome& outcome) {
  std::string text;
  for (const VariantReport& report : outcome.reports)
    if (!report.difference.empty()) text += report.name + ": " + report.difference + "\n";
  return text;
}

TEST(Verify, AllVariantsAgreeOnFourRanksAndNothingIsWritten) {
  const TinyCase run;
  for (const char* keys : {"batch: {global: 8}\n", "batch: {global: 8}\ntrain: {deterministic: grid}\n",
                           "batch: {global: 8, micro: 2}\nprecision: bf16\n"
                           "parallel: {pipeline: 2}\n"}) {
    const Outcome outcome = verify_on(4, run.config(keys), 1000);
    EXPECT_EQ(differences(outcome), "");
    EXPECT_GE(outcome.reports.size(), 11u);
    if (std::string_view(keys).find("grid") != std::string_view::npos) {
      for (const VariantReport& report : outcome.reports) {
        const bool is_other_model = report.name.starts_with("tensor 2") || report.name.starts_with("batch.");
        EXPECT_EQ(report.expected == Expected::same_bits, !is_other_model) << report.name;
      }
    }
    // Two lines of tolerances, the heads, and two for every plan with the reference.
    EXPECT_EQ(outcome.lines.size(), 3 + 2 * (outcome.reports.size() + 1));
    EXPECT_EQ(verdict(outcome.reports),
              fmt::format("all {} variants agree with the configuration's own plan", outcome.reports.size()));
  }
  EXPECT_FALSE(run.has_output());
}

/// Scales an element of a tensor in `memory`, in the middle of each part that a rank updates.
void plant(Trainer& trainer, std::string_view tensor, const FlatMemory& memory, float factor) {
  for (const UpdateSegment& segment : trainer.optimizer().segments()) {
    const PlacedWeight& weight = trainer.model().placed()[static_cast<size_t>(segment.weight)];
    if (weight.spec.piece.name != tensor) continue;
    const Range middle{segment.elements.begin + segment.elements.count / 2, 1};
    memory.at(middle).as<float>()[0] *= factor;
  }
}

TEST(Verify, APlantedFaultIsFoundAndItsTensorNamed) {
  const TinyCase run;
  const LoadedConfig loaded = run.config("batch: {global: 8}\n");
  struct Fault {
    std::string variant, tensor;
    int step;
    std::string message;
  };
  const Fault faults[] = {
      {"parallel.zero = 3", "model.layers.3.mlp.down_proj.weight", 1,
       "step 1: gradient of model.layers.3.mlp.down_proj.weight differs, by "},
      {"train.recompute = full", "model.layers.0.self_attn.k_proj.weight", 1,
       "step 1: gradient of model.layers.0.self_attn.k_proj.weight differs, by "},
      {"batch.micro = 2", "model.norm.weight", 0, "before step 1: weight model.norm.weight differs, by "},
      {"parallel.zero = 3", "model.layers.1.mlp.gate_proj.weight", 2,
       "after step 2: weight model.layers.1.mlp.gate_proj.weight differs, by "},
  };
  for (const Fault& fault : faults) {
    const Outcome outcome = verify_on(4, loaded, 8, [&](const Variant& variant, int step, Trainer& trainer) {
      if (variant.name != fault.variant || step != fault.step) return;
      const bool is_gradient = step == 1;
      // Weights by enough to leave the learning rate's reach.
      plant(trainer, fault.tensor,
            is_gradient ? trainer.model().summed_gradients() : trainer.model().owned_parameters(),
            is_gradient ? 1.5f : 100.0f);
    });
    EXPECT_TRUE(differences(outcome).starts_with(fault.variant + ": " + fault.message))
        << differences(outcome);
    EXPECT_EQ(std::ranges::count_if(outcome.reports,
                                    [](const VariantReport& report) { return !report.difference.empty(); }),
              1);
    run_thread_ranks(2, [&](Communicator& world) {
      try {
        check_agreement(outcome.reports, world);
        ADD_FAILURE() << "passed";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::numerical);
        EXPECT_TRUE(std::string_view(error.what())
                        .starts_with("1 of 8 variants differ from the configuration's own plan; " +
                                     fault.variant + ": " + fault.message))
            << error.what();
      }
    });
  }
}

TEST(Verify, AVariantThatDoesNotFitIsSkippedAndTheOwnPlanRefused) {
  const TinyCase run;
  const LoadedConfig loaded = run.config("batch: {global: 8}\nparallel: {data: 2}\n");
  const auto bytes_of = [](const Plan& plan) {
    return std::max(ledger_of(plan, 0).total_bytes(), ledger_of(plan, 1).total_bytes());
  };
  const Plan own_plan = plan_of(loaded.config, run.spec(), 2, {});
  const auto variants = variants_of(loaded.config, run.spec(), own_plan, {.world = 2, .most = 1000});
  const int64_t own = bytes_of(own_plan);
  ASSERT_TRUE(
      std::ranges::any_of(variants, [&](const Variant& variant) { return bytes_of(variant.plan) > own; }));
  const Outcome outcome = verify_on(2, loaded, 1000, {}, own);
  for (size_t i = 0; i < outcome.reports.size(); ++i) {
    const bool fits = bytes_of(variants[i].plan) <= own;
    EXPECT_EQ(outcome.reports[i].skipped.empty(), fits) << outcome.reports[i].name;
    EXPECT_EQ(outcome.reports[i].skipped.find("a rank wants ") != std::string::npos, !fits);
  }
  EXPECT_EQ(differences(outcome), "");
  EXPECT_TRUE(verdict(outcome.reports).ends_with(" did not fit the memory")) << verdict(outcome.reports);
  EXPECT_THROW(verify_on(2, loaded, 8, {}, own - 1), Error);
}

TEST(Verify, AReplicaThatStrayedIsFoundInTheOwnPlanToo) {
  const TinyCase run;
  for (const char* name : {"the configuration's own plan", "parallel.zero = 0"}) {
    const Outcome outcome = verify_on(
        2, run.config("batch: {global: 8}\n"), 1000, [&](const Variant& variant, int step, Trainer& trainer) {
          if (variant.name != name || step != 0 || trainer.coordinate().data != 1) return;
          // The first bucket's first element is of data rank 0's shard: here it is a replica.
          const PlacedWeight& weight = trainer.model().placed().at(5);
          trainer.model().owned_parameters().at({weight.offset, 1}).as<float>()[0] += 1;
        });
    EXPECT_NE(differences(outcome).find(fmt::format("{}: before step 1: weight ", name)), std::string::npos)
        << differences(outcome);
    EXPECT_NE(differences(outcome).find("is not the same on all data ranks"), std::string::npos);
  }
}

}  // namespace
}  // namespace ptrain
