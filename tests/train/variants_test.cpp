// Which plans are compared with a configuration's own, and what is due of each.
#include "src/train/variants.h"

#include <algorithm>
#include <set>

#include "tests/train/tiny_case.h"

namespace ptrain {
namespace {

std::vector<std::string> names_of(const std::vector<Variant>& variants) {
  std::vector<std::string> names;
  for (const Variant& variant : variants) names.push_back(variant.name);
  return names;
}

std::vector<Variant> variants(const TinyCase& run, std::string_view keys, const VariantRequest& request) {
  const Config config = run.config(keys).config;
  return variants_of(config, run.spec(), plan_of(config, run.spec(), request.world, {}), request);
}

TEST(Variants, ChangeEachChoiceOnceInEightAndAllOnDemand) {
  const TinyCase run;
  const auto most = [&](size_t count) {
    return variants(run, "batch: {global: 12}\nparallel: {tensor: 2}\n", {.world = 4, .most = count});
  };
  const auto eight = most(8);
  EXPECT_EQ(names_of(eight),
            (std::vector<std::string>{
                "the same again", "tensor 2 x pipeline 2 x data 1", "tensor 1 x pipeline 1 x data 4",
                "parallel.zero = 3", "batch.micro = 2", "train.recompute = full",
                "parallel.schedule = zero_bubble (H1)", "parallel.sequence_parallel = false"}));
  const auto all = most(1000);
  const std::vector<std::string> names = names_of(all);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), all.size()) << "each once";
  EXPECT_GT(all.size(), eight.size());
  for (const std::string& name : names) EXPECT_EQ(name.find("tensor 4"), std::string::npos) << "6 heads";
  for (const Variant& variant : all) EXPECT_EQ(variant.plan.mesh.world(), 4);
  EXPECT_EQ(most(3).size(), 3u);
}

TEST(Variants, LeaveOutWhatAPlanRefuses) {
  const TinyCase run;
  const auto has = [](const std::vector<Variant>& found, std::string_view text) {
    return std::ranges::any_of(
        found, [&](const Variant& variant) { return variant.name.find(text) != std::string::npos; });
  };
  const std::string_view batch = "batch: {global: 12}\n";
  const auto sharded =
      variants(run, "batch: {global: 12}\nparallel: {zero: 3}\n", {.world = 2, .most = 1000});
  EXPECT_FALSE(has(sharded, "zero_bubble")) << "its halves need whole gradients";
  EXPECT_TRUE(has(sharded, "parallel.zero = 1"));
  const auto odd = variants(run, "batch: {global: 3}\n", {.world = 1, .most = 1000});
  EXPECT_FALSE(has(odd, "batch.micro")) << "2 does not divide 3";
  EXPECT_FALSE(has(odd, "parallel.zero")) << "one data rank has nothing to share";
  // Hosts of two ranks each: no group of four.
  const std::vector<std::string> hosts = {"a", "a", "b", "b"};
  EXPECT_TRUE(has(variants(run, batch, {.world = 4, .hosts = hosts, .most = 1000}), "tensor 2"));
  const std::vector<std::string> alone = {"a", "b", "c", "d"};
  EXPECT_FALSE(has(variants(run, batch, {.world = 4, .hosts = alone, .most = 1000}), "tensor 2"));
}

TEST(Variants, ExpectBitsWhereTheSameNumbersAreAddedInTheSameOrder) {
  const TinyCase run;
  const auto plan = [&](std::string_view keys, int64_t micro = 1) {
    const Config config = run.config(fmt::format("batch: {{global: 12, micro: {}}}\n{}", micro, keys)).config;
    return plan_of(config, run.spec(), 4, {});
  };
  const Plan own = plan("parallel: {pipeline: 2}\n");
  const auto is = [&](std::string_view keys, int64_t micro = 1) {
    return expected_of(own, plan(keys, micro));
  };
  using enum Expected;
  EXPECT_EQ(is("parallel: {pipeline: 2, schedule: gpipe}\n"), same_bits);
  EXPECT_EQ(is("parallel: {pipeline: 2, schedule: zero_bubble}\n"), same_bits);
  EXPECT_EQ(is("parallel: {pipeline: 2, zero: 0}\n"), same_bits);
  EXPECT_EQ(is("parallel: {pipeline: 2}\ntrain: {recompute: full}\n"), same_bits);
  EXPECT_EQ(is("parallel: {pipeline: 2, schedule: interleaved, virtual_stages: 2}\n"), same_layers);
  EXPECT_EQ(is("parallel: {pipeline: 1}\n"), same_layers);
  EXPECT_EQ(is("parallel: {pipeline: 2, zero: 2}\n"), same_layers) << "six micro-batches";
  EXPECT_EQ(is("parallel: {pipeline: 2}\n", 2), same_model);
  EXPECT_EQ(is("parallel: {pipeline: 2, tensor: 2}\n"), same_model);
  const auto once = [&](std::string_view keys) { return plan(keys, 3); };  // one micro-batch on 4 data ranks
  EXPECT_EQ(expected_of(once("parallel: {zero: 1}\n"), once("parallel: {zero: 3}\n")), same_bits);
  Plan invariant = own, other = plan("parallel: {pipeline: 1}\n");
  invariant.parallel.is_grid_invariant = other.parallel.is_grid_invariant = true;
  EXPECT_EQ(expected_of(invariant, other), same_bits);
}

}  // namespace
}  // namespace ptrain
