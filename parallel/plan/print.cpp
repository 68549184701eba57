#include "parallel/plan/print.h"

#include <algorithm>
#include <optional>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/print_estimate.h"
#include "parallel/plan/print_text.h"
#include "parallel/plan/text_table.h"

namespace ptrain {
namespace {

/// The master of bf16 weights is the weights and 16 more bits of each.
std::string_view master_text(const StateTypes& types) {
  if (types.master == types.param) return "none";
  return types.master == DType::i16 ? "f32 (the weights and 16 bits more)" : name_of(types.master);
}

std::string head_text(const Plan& plan, const std::string& why) {
  const ParallelConfig& parallel = plan.parallel;
  const StateTypes& types = parallel.types;
  TextTable table;
  table.add({"mesh", fmt::format("{} ranks = {} (tensor fastest, then data, then pipeline)",
                                 plan.mesh.world(), to_string(plan.mesh))});
  table.add(
      {"batch",
       fmt::format(
           "{} rows of {} tokens a step ({} tokens); {} micro-batches of {} {} on each of {} data ranks",
           with_commas(parallel.global), with_commas(parallel.sequence_length),
           with_commas(parallel.global * parallel.sequence_length), plan.micros, parallel.micro,
           parallel.micro == 1 ? "row" : "rows", plan.mesh.data)});
  table.add({"types", fmt::format("weights {}, gradients {}, sums {}, master {}, moments {}",
                                  name_of(types.param), name_of(types.grad), name_of(types.reduce),
                                  master_text(types), name_of(types.moments))});
  std::string choices =
      fmt::format("schedule {}, ZeRO {}, sequence parallelism {}, recompute {}", schedule_text(parallel),
                  parallel.zero, parallel.is_sequence_parallel ? "on" : "off", recompute_text(parallel));
  if (parallel.tensor_strips > 1)
    choices += fmt::format(", layers in {} strips of rows", parallel.tensor_strips);
  if (parallel.offload == Offload::optimizer) choices += ", optimizer in host memory";
  if (parallel.is_grid_invariant) choices += ", sums that no grid changes";
  table.add({"choices", choices});
  if (!why.empty()) table.add({"chosen", why});
  return plan.workload.name + "\n" + table.text({true, true});
}

std::string units_text(const Plan& plan, Range units) {
  const Unit& first = plan.workload.units[at(units.begin)];
  std::string text = first.kind == UnitKind::block ? "" : first.name;
  int64_t begin = units.begin, end = units.end();
  while (begin < end && plan.workload.units[at(begin)].kind != UnitKind::block) ++begin;
  while (end > begin && plan.workload.units[at(end - 1)].kind != UnitKind::block) --end;
  if (end > begin) {
    const std::string& name = plan.workload.units[at(begin)].name;
    const std::string& last = plan.workload.units[at(end - 1)].name;
    text += (text.empty() ? "" : ", ") + name;
    if (end - begin > 1) text += " - " + last.substr(last.find_last_of(' ') + 1);
  }
  for (int64_t unit = end; unit < units.end(); ++unit) text += ", " + plan.workload.units[at(unit)].name;
  return text;
}

/// Stages to show: all, or the first and the last ones. -1 stands for those left out.
std::vector<int> shown(int stages, int most) {
  std::vector<int> result;
  for (int stage = 0; stage < stages; ++stage) {
    const bool is_left_out = stages > most && stage >= most / 2 && stage < stages - (most - most / 2);
    if (!is_left_out) {
      result.push_back(stage);
    } else if (result.back() != -1) {
      result.push_back(-1);
    }
  }
  return result;
}

std::string stages_text(const Plan& plan) {
  double flops = 0;
  for (int stage = 0; stage < plan.map.stages(); ++stage) {
    flops += plan.costs.forward_s[at(stage)] + plan.costs.backward_s[at(stage)];
  }
  TextTable table;
  table.add({"stage", "ranks", "units", "parameters a rank", "compute", "buckets", "live micro-batches"});
  for (int stage : shown(plan.map.stages(), 16)) {
    if (stage < 0) {
      table.add({"..."});
      continue;
    }
    const StagePlan& part = plan.stages[at(stage)];
    const int first = plan.mesh.rank_of({.pipeline = part.position});
    const int last = plan.mesh.rank_of(
        {.pipeline = part.position, .data = plan.mesh.data - 1, .tensor = plan.mesh.tensor - 1});
    const double own = plan.costs.forward_s[at(stage)] + plan.costs.backward_s[at(stage)];
    int64_t parameters = 0;
    for (const FlatPiece& piece : flat_layout_of(plan, first).pieces) {
      if (piece.unit >= part.units.begin && piece.unit < part.units.end()) parameters += piece.elements.count;
    }
    table.add({std::to_string(stage),
               first == last ? std::to_string(first) : fmt::format("{} - {}", first, last),
               units_text(plan, part.units), with_commas(parameters), percent(flops > 0 ? own / flops : 0),
               std::to_string(part.bucket_units.size()),
               std::to_string(plan.slots[at(part.position)][at(part.chunk)])});
  }
  return "\nStages\n" + table.text({true, true, true});
}

/// The rank of a position that holds most, by one of its ledgers.
Ledger largest_ledger(const Plan& plan, int position, Ledger (*of_rank)(const Plan&, int)) {
  Ledger largest;
  for (int tensor = 0; tensor < plan.mesh.tensor; ++tensor) {
    Ledger ledger = of_rank(plan, plan.mesh.rank_of({.pipeline = position, .tensor = tensor}));
    if (ledger.total_bytes() > largest.total_bytes()) largest = std::move(ledger);
  }
  return largest;
}

struct Phase {
  const char* name;
  std::vector<MemoryKind> kinds;  // in use
};

/// "205 MiB x 16": bytes of a slot and how many there are. With several stages a rank one slot of each, and
/// the fewest and the most that a stage has: "1.69 GiB x 8-16".
std::string slots_text(const Ledger& ledger) {
  int64_t bytes = 0, fewest = 0, most = 0;
  for (const LedgerEntry& entry : ledger.entries) {
    if (entry.kind != MemoryKind::activations) continue;
    bytes += entry.bytes;
    fewest = fewest == 0 ? entry.count : std::min(fewest, entry.count);
    most = std::max(most, entry.count);
  }
  if (bytes == 0) return "0 B";
  const std::string slots = fewest == most ? std::to_string(most) : fmt::format("{}-{}", fewest, most);
  return fmt::format("{} x {}", bytes_text(static_cast<double>(bytes)), slots);
}

/// What sums that no grid changes hold more on the rank that holds most.
std::string invariance_text(const Plan& plan) {
  if (!plan.parallel.is_grid_invariant) return {};
  ParallelConfig plain = plan.parallel;
  plain.is_grid_invariant = false;
  const auto most = [](const Plan& one) {
    int64_t bytes = 0;
    for (int rank : typical_ranks(one)) bytes = std::max(bytes, ledger_of(one, rank).total_bytes());
    return bytes;
  };
  const int64_t more = most(plan) - most(make_plan(plan.workload, plain, plan.mesh.world()));
  return fmt::format("  of it for sums that no grid changes: {}\n", bytes_text(static_cast<double>(more)));
}

std::string memory_text(const Plan& plan, const std::optional<Hardware>& hardware) {
  using enum MemoryKind;
  const std::vector<int> positions = shown(plan.map.positions(), 8);
  std::vector<Ledger> ledgers;
  const auto take_ledgers = [&](Ledger (*of_rank)(const Plan&, int)) {
    ledgers.clear();
    for (int position : positions)
      ledgers.push_back(position < 0 ? Ledger{} : largest_ledger(plan, position, of_rank));
  };
  take_ledgers(ledger_of);
  TextTable table;
  const auto add_row = [&](std::string name, auto text_of) {
    std::vector<std::string> cells{std::move(name)};
    for (size_t i = 0; i < positions.size(); ++i) {
      cells.push_back(positions[i] < 0 ? "..." : text_of(ledgers[i]));
    }
    table.add(std::move(cells));
  };
  const auto add_bytes = [&](std::string name, auto bytes_of) {
    add_row(std::move(name),
            [&](const Ledger& ledger) { return bytes_text(static_cast<double>(bytes_of(ledger))); });
  };
  std::vector<std::string> head{"by kind"};
  for (int position : positions)
    head.push_back(position < 0 ? "..."
                                : fmt::format("{} {}", plan.map.chunks() == 1 ? "stage" : "place", position));
  table.add(head);
  for (int kind = 0; kind < memory_kinds; ++kind) {
    const auto which = static_cast<MemoryKind>(kind);
    add_bytes(std::string(name_of(which)), [&](const Ledger& ledger) { return ledger.bytes(which); });
    if (which == activations) add_row("  a slot x slots", slots_text);
  }
  add_bytes("all, taken before the first step", [](const Ledger& ledger) { return ledger.total_bytes(); });
  if (hardware) {
    add_bytes("context and libraries, an estimate", [&](const Ledger&) { return hardware->reserved_bytes; });
  }
  table.add({"in use by phase"});
  const std::vector<Phase> phases = {
      {"loading the model", {weights, master}},
      {"forward and backward", {weights, gradients, activations, communication, scratch}},
      {"reduction and update", {weights, gradients, master, moments, communication}},
      {"saving", {weights, master, moments}},
  };
  for (const Phase& phase : phases) {
    add_bytes(phase.name, [&](const Ledger& ledger) {
      int64_t bytes = 0;
      for (MemoryKind kind : phase.kinds) bytes += ledger.bytes(kind);
      return bytes;
    });
  }
  if (plan.parallel.offload == Offload::optimizer) {
    table.add({"in pinned host memory"});
    take_ledgers(host_ledger_of);
    for (MemoryKind kind : {weights, master, moments, communication})
      add_bytes(std::string(name_of(kind)), [&](const Ledger& ledger) { return ledger.bytes(kind); });
    add_bytes("all of the host's", [](const Ledger& ledger) { return ledger.total_bytes(); });
  }
  std::string beside;
  if (plan.parallel.saves_behind) {
    int64_t most = 0;
    for (int rank = 0; rank < plan.mesh.world(); ++rank) most = std::max(most, snapshot_bytes(plan, rank));
    beside = fmt::format(
        "  beside it, in host memory, a copy of the state that saves are written from: {} at most\n",
        bytes_text(static_cast<double>(most)));
  }
  return "\nMemory of a rank (the largest of each place along the pipeline)\n" + table.text() + beside +
         invariance_text(plan);
}

/// The bubble of equal stages by the schedule's formula; nothing where there is none.
std::optional<double> formula_of(const Plan& plan) {
  const int positions = plan.map.positions();
  switch (plan.parallel.schedule) {
    case ScheduleName::gpipe:
    case ScheduleName::one_f_one_b:
      return textbook_bubble(positions, plan.micros);
    case ScheduleName::interleaved:
      if (plan.micros % positions != 0) return std::nullopt;
      return interleaved_bubble(positions, plan.micros, plan.map.chunks());
    case ScheduleName::zero_bubble:
      if (plan.map.chunks() > 1 || plan.micros < positions) return std::nullopt;
      return zero_bubble_h1_bubble(positions, plan.micros);
  }
  return std::nullopt;
}

std::string drawing(const Plan& plan, int columns) {
  std::string text = fmt::format("\nSchedule {}: bubble {}", plan.schedule.name, percent(plan.report.bubble));
  const std::optional<double> formula = formula_of(plan);
  text += formula ? fmt::format(" of the ranks' time (by FLOPs; equal stages: {})\n", percent(*formula))
                  : " of the ranks' time (by FLOPs)\n";
  // Drawn with equal stages, so that cells line up.
  Costs costs = Costs::uniform(plan.map, 1, 2);
  costs.bucket_share = plan.costs.bucket_share;
  return text + grid(plan.schedule, plan.map, simulate(plan.schedule, plan.map, costs), columns);
}

/// Gradients summed once and parameters gathered once, by the busiest rank.
int64_t data_bytes_of_zero_1(const Plan& plan) {
  int64_t most = 0;
  for (int rank : typical_ranks(plan)) {
    int64_t bytes = 0;
    for (const FlatBucket& bucket : flat_layout_of(plan, rank).buckets) {
      for (const DType dtype : {plan.parallel.types.reduce, plan.parallel.types.param})
        bytes += bucket.elements.count * size_bytes(dtype) * (plan.mesh.data - 1) / plan.mesh.data;
    }
    most = std::max(most, bytes);
  }
  return most;
}

/// What shards of gradients and parameters send more than ZeRO-1 would.
std::string sharding_text(const Plan& plan) {
  if (plan.zero < 2) return {};
  std::string text = fmt::format("  data: ZeRO {} sums gradients after each of the {} micro-batches",
                                 plan.zero, plan.micros);
  if (plan.zero == 3) text += ", and gathers parameters for every forward and backward that lacks them";
  return text +
         fmt::format("; ZeRO 1 would send {}\n", bytes_text(static_cast<double>(data_bytes_of_zero_1(plan))));
}

std::string traffic_text(const Plan& plan) {
  RankTraffic most;
  const auto keep = [](AxisTraffic& largest, const AxisTraffic& traffic) {
    if (traffic.bytes > largest.bytes) largest = traffic;
  };
  for (int rank : typical_ranks(plan)) {
    const RankTraffic traffic = traffic_of(plan, rank);
    keep(most.tensor, traffic.tensor);
    keep(most.pipeline, traffic.pipeline);
    keep(most.data, traffic.data);
  }
  TextTable table;
  table.add({"axis", "ranks", "bytes", "messages"});
  const auto add = [&](const char* name, int ranks, const AxisTraffic& traffic) {
    table.add({name, std::to_string(ranks), bytes_text(static_cast<double>(traffic.bytes)),
               with_commas(traffic.messages)});
  };
  add("tensor", plan.mesh.tensor, most.tensor);
  add("pipeline", plan.mesh.pipeline, most.pipeline);
  add("data", plan.mesh.data, most.data);
  return "\nSent by a rank in a step (the busiest rank of each axis)\n" + table.text() + sharding_text(plan);
}

}  // namespace

std::string with_commas(int64_t number) {
  std::string text = std::to_string(number);
  for (auto place = static_cast<int64_t>(text.size()) - 3; place > (number < 0 ? 1 : 0); place -= 3) {
    text.insert(at(place), ",");
  }
  return text;
}

std::string print_plan(const Plan& plan, const PrintOptions& options) {
  std::string text = head_text(plan, options.why) + stages_text(plan) + memory_text(plan, options.hardware) +
                     drawing(plan, options.columns) + traffic_text(plan);
  if (options.hardware) {
    text += print_estimate(plan, *options.hardware);
  } else {
    text +=
        "\nFor the time of a step and whether it fits, add --hardware NAME (h200, h100, a100-80, a100-40, "
        "a10g, l4, cpu:GIB).\n";
  }
  return text;
}

}  // namespace ptrain
