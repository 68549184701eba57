#include "parallel/plan/advice.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr size_t most_changes = 3;
constexpr int most_ranks = 1 << 16;

enum class Kind : uint8_t { recompute, zero, offload, micro, schedule, grid };

/// A configuration near the given one.
struct Neighbour {
  std::vector<Kind> changed;
  ParallelConfig parallel;
  bool is_recompute_open = false;  // the least that fits
};

class Search {
 public:
  Search(const Plan& plan, const PlanMaker& make, const Hardware& hardware)
      : plan_(plan), from_(plan.parallel), make_(make), hardware_(hardware) {}

  Advice run();

 private:
  std::vector<Neighbour> singles() const;
  std::vector<Neighbour> grids() const;
  void consider(const Neighbour& neighbour);
  void look_for_ranks(Advice& advice) const;
  std::vector<Change> best() const;

  struct Found {
    std::vector<Kind> changed;
    Change change;
  };

  const Plan& plan_;
  const ParallelConfig& from_;
  const PlanMaker& make_;
  const Hardware& hardware_;
  std::vector<Found> found_;
};

std::vector<Neighbour> Search::grids() const {
  std::vector<Neighbour> neighbours;
  for (const ParallelConfig& grid : grids_of(from_, plan_.mesh.world(), plan_.workload, hardware_)) {
    const bool is_same =
        grid.tensor == from_.tensor && grid.pipeline == from_.pipeline && grid.data == from_.data;
    if (!is_same) neighbours.push_back({.changed = {Kind::grid}, .parallel = grid});
  }
  return neighbours;
}

std::vector<Neighbour> Search::singles() const {
  std::vector<Neighbour> neighbours;
  const auto add = [&](Kind kind, auto change) -> Neighbour& {
    neighbours.push_back({.changed = {kind}, .parallel = from_});
    change(neighbours.back().parallel);
    return neighbours.back();
  };
  // Recompute: selective, then the least of full.
  if (from_.recompute != Recompute::full || from_.recompute_blocks < all_blocks) {
    add(Kind::recompute, [](ParallelConfig&) {}).is_recompute_open = true;
  }
  for (int zero = from_.zero + 1; zero <= 3; ++zero) {
    add(Kind::zero, [&](ParallelConfig& parallel) { parallel.zero = zero; });
  }
  if (from_.offload == Offload::none && hardware_.host_link_bytes_per_s > 0) {
    add(Kind::offload, [](ParallelConfig& parallel) { parallel.offload = Offload::optimizer; });
  }
  for (int64_t micro = from_.micro - 1; micro >= 1; --micro) {
    if (from_.micro % micro != 0) continue;
    add(Kind::micro, [&](ParallelConfig& parallel) { parallel.micro = micro; });
  }
  const auto add_schedule = [&](ScheduleName schedule, int virtual_stages) {
    if (schedule == from_.schedule && virtual_stages == from_.virtual_stages) return;
    add(Kind::schedule, [&](ParallelConfig& parallel) {
      parallel.schedule = schedule;
      parallel.virtual_stages = virtual_stages;
    });
  };
  if (from_.pipeline > 1) {
    add_schedule(ScheduleName::one_f_one_b, 1);
    add_schedule(ScheduleName::zero_bubble, 1);
  }
  return neighbours;
}

void Search::consider(const Neighbour& neighbour) {
  const auto judged = neighbour.is_recompute_open ? with_least_recompute(neighbour.parallel, make_, hardware_)
                                                  : judge(neighbour.parallel, make_, hardware_);
  if (!judged || !judged->does_fit) return;
  std::vector<std::string> options = options_between(from_, judged->parallel);
  // Known already, or more than what fits by itself.
  const auto is_there = [&](const Found& found) {
    return std::ranges::all_of(found.change.options, [&](const std::string& option) {
      return std::ranges::count(options, option) > 0;
    });
  };
  if (std::ranges::any_of(found_, is_there)) return;
  found_.push_back(
      {.changed = neighbour.changed, .change = {.options = std::move(options), .judged = *judged}});
}

/// The fastest of each kind first, then whatever is left; all sorted by time, few changes before many.
std::vector<Change> Search::best() const {
  std::vector<const Found*> order;
  for (const Found& found : found_) order.push_back(&found);
  const auto rank = [](const Found* found) {
    return std::pair(found->changed.size(), found->change.judged.step_s);
  };
  std::ranges::stable_sort(order, {}, rank);
  std::vector<const Found*> taken;
  for (const bool is_second_round : {false, true}) {
    for (const Found* found : order) {
      if (taken.size() == most_changes || std::ranges::count(taken, found) > 0) continue;
      const auto is_same_kind = [&](const Found* other) { return other->changed == found->changed; };
      if (is_second_round || std::ranges::none_of(taken, is_same_kind)) taken.push_back(found);
    }
  }
  std::ranges::stable_sort(taken, {}, [](const Found* found) { return found->change.judged.step_s; });
  std::vector<Change> changes;
  for (const Found* found : taken) changes.push_back(found->change);
  return changes;
}

Advice Search::run() {
  // 1. One change.
  const std::vector<Neighbour> alone = singles(), other_grids = grids();
  for (const Neighbour& neighbour : alone) consider(neighbour);
  for (const Neighbour& neighbour : other_grids) consider(neighbour);
  // 2. Two of different kinds; another grid with what saves most.
  if (found_.size() < most_changes) {
    for (size_t i = 0; i < alone.size(); ++i) {
      for (size_t j = i + 1; j < alone.size(); ++j) {
        if (alone[i].changed == alone[j].changed) continue;
        Neighbour both = alone[j];
        both.changed = {alone[i].changed[0], alone[j].changed[0]};
        both.is_recompute_open |= alone[i].is_recompute_open;
        const ParallelConfig& first = alone[i].parallel;
        if (first.zero != from_.zero) both.parallel.zero = first.zero;
        if (first.offload != from_.offload) both.parallel.offload = first.offload;
        if (first.micro != from_.micro) both.parallel.micro = first.micro;
        consider(both);
      }
    }
  }
  if (found_.size() < most_changes) {
    for (const Neighbour& grid : other_grids) {
      for (const bool is_recompute_open : {false, true}) {
        for (const int zero : {from_.zero, 3}) {
          if (zero == from_.zero && !is_recompute_open) continue;
          Neighbour more = grid;
          more.is_recompute_open = is_recompute_open;
          more.parallel.zero = std::max(zero, from_.zero);
          if (is_recompute_open) more.changed.push_back(Kind::recompute);
          if (more.parallel.zero != from_.zero) more.changed.push_back(Kind::zero);
          consider(more);
        }
      }
    }
  }
  Advice advice{.changes = best(), .ranks = 0, .options_there = {}};
  if (advice.changes.empty()) look_for_ranks(advice);
  return advice;
}

/// Worlds that double, each with what saves most on every grid.
void Search::look_for_ranks(Advice& advice) const {
  for (int64_t world = 2 * int64_t{plan_.mesh.world()}; world <= most_ranks; world *= 2) {
    std::optional<Judged> best;
    for (ParallelConfig grid : grids_of(from_, static_cast<int>(world), plan_.workload, hardware_)) {
      for (const bool is_plain : {true, false}) {
        if (!is_plain) {
          grid.zero = std::max(grid.zero, 3);
          grid.recompute = Recompute::full;
          grid.recompute_blocks = all_blocks;
        }
        const auto judged = judge(grid, make_, hardware_);
        if (judged && judged->does_fit && (!best || judged->step_s < best->step_s)) best = judged;
      }
    }
    if (best) {
      advice.ranks = static_cast<int>(world);
      advice.options_there = options_between(from_, best->parallel);
      return;
    }
  }
}

}  // namespace

std::vector<std::string> options_between(const ParallelConfig& from, const ParallelConfig& to) {
  std::vector<std::string> options;
  const auto add = [&](bool is_changed, std::string_view key, auto value) {
    if (is_changed) options.push_back(fmt::format("--{} {}", key, value));
  };
  add(from.tensor != to.tensor, "parallel.tensor", to.tensor);
  add(from.pipeline != to.pipeline, "parallel.pipeline", to.pipeline);
  add(from.data != to.data, "parallel.data", to.data);
  add(from.schedule != to.schedule, "parallel.schedule", name_of(to.schedule));
  add(from.virtual_stages != to.virtual_stages, "parallel.virtual_stages", to.virtual_stages);
  add(from.zero != to.zero, "parallel.zero", to.zero);
  add(from.offload != to.offload, "parallel.offload", to.offload == Offload::none ? "none" : "optimizer");
  add(from.micro != to.micro, "batch.micro", to.micro);
  const bool is_part = to.recompute == Recompute::full && to.recompute_blocks < all_blocks;
  add(from.recompute != to.recompute || from.recompute_blocks != to.recompute_blocks, "train.recompute",
      is_part ? std::string_view("auto") : name_of(to.recompute));
  return options;
}

std::vector<ParallelConfig> grids_of(const ParallelConfig& from, int world, const Workload& workload,
                                     const Hardware& hardware) {
  const auto blocks = std::ranges::count(workload.units, UnitKind::block, &Unit::kind);
  std::vector<ParallelConfig> grids;
  for (int tensor = 1; tensor <= std::min(world, hardware.ranks_per_node); ++tensor) {
    if (world % tensor != 0 || workload.heads % tensor != 0 || hardware.ranks_per_node % tensor != 0)
      continue;
    for (int pipeline = 1; pipeline <= std::min<int64_t>(world / tensor, blocks / from.virtual_stages);
         ++pipeline) {
      const int replica = tensor * pipeline;
      if (world % replica != 0 || from.global % (from.micro * (world / replica)) != 0) continue;
      ParallelConfig grid = from;
      grid.tensor = tensor;
      grid.pipeline = pipeline;
      grid.data = world / replica;
      grids.push_back(grid);
    }
  }
  return grids;
}

Advice advise(const Plan& plan, const PlanMaker& make, const Hardware& hardware) {
  return Search(plan, make, hardware).run();
}

}  // namespace ptrain
