#include "parallel/plan/stage_cut.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr int64_t impossible = std::numeric_limits<int64_t>::max();

/// Costs as integers that add up to about 2^30, so that equal cuts compare equal and squares fit.
std::vector<int64_t> scaled(const std::vector<double>& costs) {
  double sum = 0;
  for (double cost : costs) {
    check(std::isfinite(cost) && cost >= 0, "a unit costs {}", cost);
    sum += cost;
  }
  std::vector<int64_t> whole;
  for (double cost : costs) {
    whole.push_back(sum > 0 ? static_cast<int64_t>(std::llround(cost / sum * double(1 << 30))) : 0);
  }
  return whole;
}

/// The blocks between the ends, with the ends' own costs.
struct Blocks {
  std::vector<int64_t> prefix;  // cost of the first i blocks
  int64_t embedding = 0, head = 0;
  int stages = 1;

  int count() const { return static_cast<int>(prefix.size()) - 1; }
  /// Cost of stage `stage` with blocks [begin, end).
  int64_t cost(int stage, int begin, int end) const {
    return prefix[static_cast<size_t>(end)] - prefix[static_cast<size_t>(begin)] +
           (stage == 0 ? embedding : 0) + (stage + 1 == stages ? head : 0);
  }
};

/// best[stage][begin]: the least `combine` of stages stage… over blocks begin…; no stage above `limit`.
template <class Combine>
std::vector<std::vector<int64_t>> solve(const Blocks& blocks, int64_t limit, Combine combine) {
  const int L = blocks.count();
  const auto at = [](int i) { return static_cast<size_t>(i); };
  std::vector best(at(blocks.stages + 1), std::vector<int64_t>(at(L + 1), impossible));
  best[at(blocks.stages)][at(L)] = 0;
  for (int stage = blocks.stages - 1; stage >= 0; --stage) {
    for (int begin = 0; begin < L; ++begin) {
      for (int end = begin + 1; end <= L; ++end) {
        const int64_t rest = best[at(stage + 1)][at(end)];
        const int64_t cost = blocks.cost(stage, begin, end);
        if (rest == impossible || cost > limit) continue;
        best[at(stage)][at(begin)] = std::min(best[at(stage)][at(begin)], combine(cost, rest));
      }
    }
  }
  return best;
}

}  // namespace

std::vector<Range> cut_stages(const std::vector<double>& costs, const std::vector<UnitKind>& kinds,
                              int stages) {
  check(stages >= 1 && costs.size() == kinds.size(), "{} stages, {} costs of {} units", stages, costs.size(),
        kinds.size());
  // 1. Blocks in the middle, ends weighed in.
  const std::vector<int64_t> whole = scaled(costs);
  Blocks blocks{.prefix = {0}, .stages = stages};
  int before = 0;  // units before the first block
  for (size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i] == UnitKind::block) {
      check(blocks.head == 0 && (i == 0 || kinds[i - 1] != UnitKind::head), "a block behind the head");
      blocks.prefix.push_back(blocks.prefix.back() + whole[i]);
    } else if (kinds[i] == UnitKind::embedding) {
      blocks.embedding += whole[i];
      ++before;
    } else {
      blocks.head += whole[i];
    }
  }
  check(
      stages <= blocks.count(), ExitCode::usage,
      "parallel.pipeline * parallel.virtual_stages = {} stages, but the model has {} blocks and every stage "
      "needs one; choose at most {}",
      stages, blocks.count(), blocks.count());

  // 2. The slowest stage, then the least sum of squares below it.
  const auto slowest =
      solve(blocks, impossible - 1, [](int64_t cost, int64_t rest) { return std::max(cost, rest); });
  const int64_t limit = slowest[0][0] + static_cast<int64_t>(kinds.size());  // what rounding may part
  const auto square = [](int64_t cost, int64_t rest) { return cost * cost + rest; };
  const auto squares = solve(blocks, limit, square);

  // 3. Walk the best choices; of equal ones the emptier first stage.
  std::vector<Range> ranges;
  int begin = 0;
  for (int stage = 0; stage < stages; ++stage) {
    const auto s = static_cast<size_t>(stage);
    int end = begin + 1;
    for (;; ++end) {
      const int64_t rest = squares[s + 1][static_cast<size_t>(end)];
      const int64_t cost = blocks.cost(stage, begin, end);
      if (rest != impossible && cost <= limit && square(cost, rest) == squares[s][static_cast<size_t>(begin)])
        break;
    }
    const int64_t first_unit = stage == 0 ? 0 : before + begin;
    const int64_t end_unit = stage + 1 == stages ? static_cast<int64_t>(kinds.size()) : before + end;
    ranges.push_back({first_unit, end_unit - first_unit});
    begin = end;
  }
  return ranges;
}

std::vector<Range> cut_stages(const Workload& workload, int stages) {
  std::vector<double> costs;
  std::vector<UnitKind> kinds;
  for (const Unit& unit : workload.units) {
    costs.push_back(unit.forward_flops + unit.backward_flops);
    kinds.push_back(unit.kind);
  }
  return cut_stages(costs, kinds, stages);
}

}  // namespace ptrain
