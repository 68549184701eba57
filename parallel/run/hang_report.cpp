#include "parallel/run/hang_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>

namespace ptrain {
namespace {

template <size_t N>
std::string_view text_of(const char (&text)[N]) {
  return {text, strnlen(text, N)};
}

const OpLine* innermost(const RankState& state) {
  return state.ops.open.empty() ? nullptr : &state.ops.open.back();
}

OpWait wait_of(const RankState& state) {
  const OpLine* op = innermost(state);
  return op == nullptr ? OpWait::none : op->wait;
}

const GroupLine* group_of(const RankState& state, uint32_t id) {
  for (const GroupLine& group : state.ops.groups)
    if (group.id == id) return &group;
  return nullptr;
}

bool is_busy(const RankState& state) {
  return state.is_heard && !state.has_left && wait_of(state) == OpWait::none;
}

std::string layer_text(int layer) {
  if (layer >= 0) return fmt::format("layer {}", layer);
  return layer == embedding_layer ? "the embedding" : layer == head_layer ? "the head" : "";
}

std::string text_of(const OpLine& op, const OpSnapshot& ops) {
  std::string text(text_of(op.name));
  if (op.wait == OpWait::receive) text += fmt::format(" from rank {}", op.peer);
  if (op.wait == OpWait::send) text += fmt::format(" to rank {}", op.peer);
  if (op.wait == OpWait::collective) {
    std::string_view name = "another group";
    for (const GroupLine& group : ops.groups)
      if (op.group_id_is_known != 0 && group.id == op.group_id) name = text_of(group.name);
    text += fmt::format(" {} of {}", op.sequence, name);
  }
  if (op.micro >= 0) text += fmt::format(" of micro-batch {}", op.micro);
  if (op.chunk > 0) text += fmt::format(", chunk {}", op.chunk);
  if (op.bucket >= 0) text += fmt::format(", bucket {}", op.bucket);
  if (op.layer != no_layer) text += ", " + layer_text(op.layer);
  return text;
}

/// Ranks that are waited for directly or by others that wait, from `rank` on, until one comes again.
std::vector<int> circle_from(const std::vector<std::vector<int>>& edges, int rank) {
  std::vector<int> path;
  for (int at = rank;;) {
    const auto seen = std::ranges::find(path, at);
    if (seen != path.end()) return {seen, path.end()};
    path.push_back(at);
    const std::vector<int>& next = edges[static_cast<size_t>(at)];
    if (next.empty()) return {};
    at = next.front();
  }
}

enum class Cause { silent, busy, left, circle, lost };

struct Verdict {
  Cause cause = Cause::lost;
  std::vector<int> culprits;
};

Verdict find_culprits(std::span<const RankState> ranks, const std::vector<std::vector<int>>& edges,
                      double timeout_s) {
  const auto those = [&](const auto& is) {
    std::vector<int> found;
    for (const RankState& state : ranks)
      if (is(state)) found.push_back(state.rank);
    return found;
  };
  // What fell silent a little later is part of the same: a host has several ranks.
  const auto is_silent = [&](const RankState& state) {
    return !state.has_left && (!state.is_heard || state.silent_s >= timeout_s / 2);
  };
  if (auto silent = those(is_silent); !silent.empty()) return {Cause::silent, silent};
  const auto is_stuck = [&](const RankState& s) { return is_busy(s) && s.stalled_s >= timeout_s / 2; };
  if (auto busy = those(is_stuck); !busy.empty()) return {Cause::busy, busy};
  std::set<int> waited_for;
  for (const std::vector<int>& next : edges) waited_for.insert(next.begin(), next.end());
  const auto is_gone = [&](const RankState& s) { return s.has_left && waited_for.contains(s.rank); };
  if (auto left = those(is_gone); !left.empty()) return {Cause::left, left};
  for (const RankState& state : ranks) {
    const std::vector<int> circle = circle_from(edges, state.rank);
    if (!circle.empty()) return {Cause::circle, circle};
  }
  return {Cause::lost, those([&](const RankState& s) {
            return !s.has_left && edges[static_cast<size_t>(s.rank)].empty();
          })};
}

/// "rank 2 on b", "ranks 2, 3 on b, c"
std::string names_of(std::span<const RankState> ranks, std::span<const int> which) {
  std::vector<std::string> hosts;
  for (int rank : which) {
    const std::string& host = ranks[static_cast<size_t>(rank)].host;
    if (std::ranges::find(hosts, host) == hosts.end()) hosts.push_back(host);
  }
  return fmt::format("rank{} {} on {}", which.size() == 1 ? "" : "s", to_text(which), fmt::join(hosts, ", "));
}

/// The first line: who, since when, in what.
std::string headline(std::span<const RankState> ranks, const Verdict& verdict, double timeout_s) {
  const RankState& culprit = ranks[static_cast<size_t>(verdict.culprits.front())];
  const std::string who = names_of(ranks, verdict.culprits);
  const std::string_view has = verdict.culprits.size() == 1 ? "has" : "have";
  const std::string where = fmt::format("{}: {}", place_of(culprit.ops), doing(culprit.ops));
  const std::string limit = fmt::format("(train.hang_timeout_s: {:g})", timeout_s);
  switch (verdict.cause) {
    case Cause::silent:
      if (!culprit.is_heard) return fmt::format("hang: {} {} never been heard of {}", who, has, limit);
      return fmt::format("hang: {} {} not answered for {:.1f} s {}; {}: {}", who, has, culprit.silent_s,
                         limit, culprit.is_exact ? "it stands in" : "when last heard of", where);
    case Cause::busy:
      return fmt::format("hang: {} {} made no progress for {:.1f} s {}: {}", who, has, culprit.stalled_s,
                         limit, where);
    case Cause::left:
      return fmt::format("hang: {} {} left the run, and others wait {}", who, has, limit);
    case Cause::circle:
      return fmt::format("hang: {} wait for each other, for {:.1f} s {}: {}", who, culprit.stalled_s, limit,
                         where);
    case Cause::lost:
      return fmt::format(
          "hang: {}: everybody has come, and yet it does not end, for {:.1f} s {}: {}: a message or a "
          "device's work is lost",
          who, culprit.stalled_s, limit, where);
  }
  return "";
}

std::string advice(const RankState& culprit, Cause cause) {
  const std::string again = "The same command goes on from the newest checkpoint.";
  if (cause == Cause::silent)
    return fmt::format("  Its process or {} is stopped, cut off or dead: look there. {}", culprit.host,
                       again);
  if (cause == Cause::busy)
    return fmt::format("  Its process lives: look at its disk, its GPU, the load of {}. {}", culprit.host,
                       again);
  return "  " + again;
}

/// Who waits for the culprits: some of them with what they wait in, the rest by number.
std::string waiting_text(std::span<const RankState> ranks, const std::vector<std::vector<int>>& edges,
                         const Verdict& verdict) {
  constexpr size_t most_lines = 8;
  const std::set<int> culprits(verdict.culprits.begin(), verdict.culprits.end());
  std::vector<int> direct, others;
  for (const RankState& state : ranks) {
    const bool is_culprit = culprits.contains(state.rank) && verdict.cause != Cause::circle;
    if (is_culprit || state.has_left) continue;
    const auto is_waited_for = [&](int peer) { return culprits.contains(peer); };
    const auto& next = edges[static_cast<size_t>(state.rank)];
    if (std::ranges::any_of(next, is_waited_for)) {
      direct.push_back(state.rank);
    } else if (wait_of(state) != OpWait::none) {
      others.push_back(state.rank);
    }
  }
  std::string text;
  for (size_t i = 0; i < std::min(direct.size(), most_lines); ++i) {
    const RankState& state = ranks[static_cast<size_t>(direct[i])];
    std::vector<int> on;
    for (int peer : edges[static_cast<size_t>(state.rank)])
      if (culprits.contains(peer)) on.push_back(peer);
    text += fmt::format("\n  rank {} on {} waits for rank{} {} for {:.1f} s: {}", state.rank, state.host,
                        on.size() == 1 ? "" : "s", to_text(on), innermost(state)->age_s, doing(state.ops));
  }
  if (direct.size() > most_lines) {
    direct.erase(direct.begin(), direct.begin() + most_lines);
    text += fmt::format("\n  so do ranks {}", to_text(direct));
  }
  if (!others.empty()) {
    text += fmt::format("\n  rank{} {} wait{} for others that wait", others.size() == 1 ? "" : "s",
                        to_text(others), others.size() == 1 ? "s" : "");
  }
  return text;
}

std::vector<std::string> newest(const OpSnapshot& ops) {
  constexpr size_t most = 12;
  std::vector<std::string> lines;
  for (size_t i = ops.recent.size() - std::min(ops.recent.size(), most); i < ops.recent.size(); ++i)
    lines.push_back(fmt::format("{} ({:.3f} s, ended {:.1f} s ago)", text_of(ops.recent[i], ops),
                                ops.recent[i].took_s, ops.recent[i].age_s - ops.recent[i].took_s));
  return lines;
}

}  // namespace

bool is_hang(std::span<const RankState> ranks, double timeout_s) {
  bool is_all_stalled = true;
  for (const RankState& state : ranks) {
    if (state.has_left) continue;
    if (state.silent_s >= timeout_s) return true;
    if (is_busy(state) && state.stalled_s >= timeout_s) return true;
    is_all_stalled = is_all_stalled && state.stalled_s >= timeout_s;
  }
  return is_all_stalled && !std::ranges::all_of(ranks, &RankState::has_left);
}

std::vector<int> waits_for(std::span<const RankState> ranks, int rank) {
  const RankState& own = ranks[static_cast<size_t>(rank)];
  const OpLine* op = innermost(own);
  if (op == nullptr || op->wait == OpWait::none || own.has_left) return {};
  if (op->wait == OpWait::receive || op->wait == OpWait::send) return {op->peer};
  // A group some of whose ranks are not known: those that fell silent before it was made, or before they were
  // heard of, may be the missing ones.
  const auto is_incomplete = [&](uint32_t group) {
    const auto has_it = [&](const RankState& other) { return group_of(other, group) != nullptr; };
    return std::ranges::count_if(ranks, has_it) < group_of(own, group)->size;
  };
  const auto has_fewer = [&](const RankState& other, uint32_t group, int64_t entered) {
    const GroupLine* theirs = group_of(other, group);
    if (theirs != nullptr) return theirs->entered < entered;
    const bool is_old = !other.is_heard || (other.silent_s > 0 && !other.is_exact);
    return is_old && group_of(own, group) != nullptr && is_incomplete(group);
  };
  std::vector<int> found;
  for (const RankState& other : ranks) {
    if (other.rank == rank) continue;
    bool is_missing = false;
    if (op->wait == OpWait::collective) {
      is_missing = op->group_id_is_known != 0 && has_fewer(other, op->group_id, op->sequence + 1);
    } else {
      for (const GroupLine& group : own.ops.groups)
        is_missing = is_missing || has_fewer(other, group.id, group.entered);
    }
    if (is_missing) found.push_back(other.rank);
  }
  return found;
}

std::string doing(const OpSnapshot& ops) {
  std::string text;
  for (auto op = ops.open.rbegin(); op != ops.open.rend(); ++op)
    text += fmt::format("{}{}", text.empty() ? "" : ", in ", text_of(*op, ops));
  if (text.empty() && !ops.recent.empty())
    return fmt::format("nothing that is noted, after {}", text_of(ops.recent.back(), ops));
  return text.empty() ? "nothing that is noted" : text;
}

std::string place_of(const OpSnapshot& ops) {
  const std::string_view phase = text_of(ops.phase);
  return ops.step > 0 ? fmt::format("{}, step {}", phase, ops.step) : std::string(phase);
}

std::string to_text(std::span<const int> ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", ranks[i]);
    if (last > i) text += fmt::format("{}{}", last > i + 1 ? " to " : ", ", ranks[last]);
    i = last + 1;
  }
  return text;
}

HangReport judge(std::span<const RankState> ranks, double timeout_s) {
  // 1. Who waits for whom, and who is at the end of it.
  std::vector<std::vector<int>> edges;
  for (const RankState& state : ranks) edges.push_back(waits_for(ranks, state.rank));
  const Verdict verdict = find_culprits(ranks, edges, timeout_s);
  HangReport report;
  // 2. What every rank did.
  for (const RankState& state : ranks) {
    report.ranks.push_back({.rank = state.rank,
                            .host = state.host,
                            .place = place_of(state.ops),
                            .doing = state.has_left ? "left the run" : doing(state.ops),
                            .silent_s = state.silent_s,
                            .stalled_s = state.stalled_s,
                            .is_culprit = std::ranges::count(verdict.culprits, state.rank) > 0,
                            .waits_for = edges[static_cast<size_t>(state.rank)],
                            .before = newest(state.ops)});
  }
  if (verdict.culprits.empty()) return report;
  // 3. In words.
  const RankState& culprit = ranks[static_cast<size_t>(verdict.culprits.front())];
  report.rank = culprit.rank;
  report.host = culprit.host;
  // A silent rank may have gone on since it was last heard of, at least to where others wait for it.
  const OpSnapshot* furthest = &culprit.ops;
  for (const RankState& state : ranks) {
    const bool waits = std::ranges::count(edges[static_cast<size_t>(state.rank)], culprit.rank) > 0;
    if (waits && state.ops.step > furthest->step) furthest = &state.ops;
  }
  report.phase = std::string(text_of(furthest->phase));
  report.step = furthest->step;
  report.reason = headline(ranks, verdict, timeout_s) + waiting_text(ranks, edges, verdict) + "\n" +
                  advice(culprit, verdict.cause);
  return report;
}

}  // namespace ptrain
