#include "src/train/variants.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "parallel/plan/placement.h"

namespace ptrain {
namespace {

struct Candidate {
  std::string name;
  ParallelConfig parallel;
};
using Candidates = std::vector<Candidate>;

/// How far a count is from another, in factors of two.
double octaves(int a, int b) {
  return std::abs(std::log2(double(a)) - std::log2(double(b)));
}

/// All other factorisations of the world, the nearest first; with `tensor` changed, or not.
Candidates grids(const Config& config, const Plan& own, bool is_tensor_changed) {
  const Mesh& mesh = own.mesh;
  std::vector<Mesh> meshes;
  for (int tensor = 1; tensor <= mesh.world(); ++tensor) {
    for (int pipeline = 1; tensor * pipeline <= mesh.world(); ++pipeline) {
      if (mesh.world() % (tensor * pipeline) != 0) continue;
      const Mesh other{.pipeline = pipeline, .data = mesh.world() / (tensor * pipeline), .tensor = tensor};
      if (other != mesh && (tensor != mesh.tensor) == is_tensor_changed) meshes.push_back(other);
    }
  }
  std::ranges::stable_sort(meshes, {}, [&](const Mesh& other) {
    return octaves(other.tensor, mesh.tensor) + octaves(other.pipeline, mesh.pipeline);
  });
  Candidates candidates;
  for (const Mesh& other : meshes) {
    ParallelConfig& parallel = candidates.emplace_back(to_string(other), own.parallel).parallel;
    parallel.tensor = other.tensor;
    parallel.pipeline = other.pipeline;
    parallel.data = other.data;
    parallel.is_sequence_parallel = config.parallel.sequence_parallel.value_or(true);
  }
  return candidates;
}

Candidates micro_batches(const ParallelConfig& own) {
  Candidates candidates;
  const auto take = [&](int64_t micro) {
    candidates.emplace_back(fmt::format("batch.micro = {}", micro), own).parallel.micro = micro;
  };
  take(own.micro * 2);
  if (own.micro % 2 == 0) take(own.micro / 2);
  return candidates;
}

Candidates zeros(const ParallelConfig& own) {
  Candidates candidates;
  for (int zero : {3, 2, 0, 1}) {
    if (own.data > 1 && zero != own.zero)
      candidates.emplace_back(fmt::format("parallel.zero = {}", zero), own).parallel.zero = zero;
  }
  return candidates;
}

Candidates recomputes(const ParallelConfig& own) {
  Candidates candidates;
  for (Recompute recompute : {Recompute::full, Recompute::selective, Recompute::none}) {
    if (recompute == own.recompute) continue;
    ParallelConfig& parallel =
        candidates.emplace_back(fmt::format("train.recompute = {}", name_of(recompute)), own).parallel;
    parallel.recompute = recompute;
    parallel.recompute_blocks = all_blocks;
  }
  return candidates;
}

Candidates schedules(const ParallelConfig& own) {
  struct Order {
    ScheduleName name;
    int chunks;
    std::string_view suffix = "";
  };
  using enum ScheduleName;
  constexpr Order orders[] = {{zero_bubble, 1, " (H1)"},
                              {interleaved, 2, " (virtual_stages 2)"},
                              {gpipe, 1},
                              {one_f_one_b, 1},
                              {zero_bubble, 2, " (ZB-V)"}};
  Candidates candidates;
  for (const Order& order : orders) {
    if (order.name == own.schedule && order.chunks == own.virtual_stages) continue;
    const std::string name = fmt::format("parallel.schedule = {}{}", name_of(order.name), order.suffix);
    ParallelConfig& parallel = candidates.emplace_back(name, own).parallel;
    parallel.schedule = order.name;
    parallel.virtual_stages = order.chunks;
  }
  return candidates;
}

Candidates sequence_parallels(const ParallelConfig& own) {
  Candidate other{fmt::format("parallel.sequence_parallel = {}", !own.is_sequence_parallel), own};
  other.parallel.is_sequence_parallel = !own.is_sequence_parallel;
  return own.tensor > 1 ? Candidates{other} : Candidates{};
}

/// Nothing where the choice is impossible on these ranks.
std::optional<Plan> plan_if_possible(const Config& config, const ModelSpec& spec,
                                     const ParallelConfig& parallel, const VariantRequest& request) {
  try {
    Plan plan = plan_for(config, spec, parallel, request.world, request.compute);
    if (!request.hosts.empty() && !config.parallel.allow_tensor_across_nodes)
      check_tensor_groups(plan.mesh, request.hosts, "parallel.tensor");
    return plan;
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
    return std::nullopt;
  }
}

/// How many stages of the model lie on a rank: what decides who adds what, beside the grid.
bool has_same_stages(const ParallelConfig& a, const ParallelConfig& b) {
  if (a.virtual_stages != b.virtual_stages) return false;
  return a.virtual_stages == 1 || a.schedule == b.schedule;
}

}  // namespace

Expected expected_of(const Plan& reference, const Plan& other) {
  const ParallelConfig &a = reference.parallel, &b = other.parallel;
  const bool is_alike = a.tensor == b.tensor && a.is_sequence_parallel == b.is_sequence_parallel &&
                        a.micro == b.micro && a.tensor_strips == b.tensor_strips;
  const auto sums_alike = [](const Plan& plan) { return plan.zero <= 1 || plan.micros == 1; };
  const bool has_same_sums = reference.zero == other.zero || (sums_alike(reference) && sums_alike(other));
  const bool has_same_grid = a.pipeline == b.pipeline && a.data == b.data && has_same_stages(a, b);
  const bool is_any_grid = a.is_grid_invariant && b.is_grid_invariant;
  if (!is_alike) return Expected::same_model;
  return has_same_sums && (is_any_grid || has_same_grid) ? Expected::same_bits : Expected::same_layers;
}

std::vector<Variant> variants_of(const Config& config, const ModelSpec& spec, const Plan& own,
                                 const VariantRequest& request) {
  const ParallelConfig& parallel = own.parallel;
  const Candidates axes[] = {Candidates{{"the same again", parallel}},
                             grids(config, own, false),
                             grids(config, own, true),
                             zeros(parallel),
                             micro_batches(parallel),
                             recomputes(parallel),
                             schedules(parallel),
                             sequence_parallels(parallel)};
  // One of each choice, then a second one of each, and so on; in the list choice by choice.
  std::vector<std::vector<Variant>> taken(std::size(axes));
  std::vector<size_t> next(std::size(axes), 0);
  size_t count = 0;
  for (bool is_more = true; is_more && count < request.most;) {
    is_more = false;
    for (size_t axis = 0; axis < std::size(axes) && count < request.most; ++axis) {
      std::optional<Plan> plan;
      while (!plan && next[axis] < axes[axis].size())
        plan = plan_if_possible(config, spec, axes[axis][next[axis]++].parallel, request);
      if (!plan) continue;
      taken[axis].push_back(
          {.name = axes[axis][next[axis] - 1].name, .plan = *plan, .expected = expected_of(own, *plan)});
      ++count;
      is_more = true;
    }
  }
  std::vector<Variant> variants;
  for (std::vector<Variant>& axis : taken)
    for (Variant& variant : axis) variants.push_back(std::move(variant));
  return variants;
}

}  // namespace ptrain
