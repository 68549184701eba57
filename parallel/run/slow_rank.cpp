#include "parallel/run/slow_rank.h"

#include <algorithm>
#include <cmath>

namespace ptrain {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

/// Seconds for a unit of work.
double pace(const RankTime& time) {
  return time.median_s / time.weight;
}

}  // namespace

void StepTimes::add(double computed_s) {
  if (!std::isfinite(computed_s)) return;
  last_[static_cast<size_t>(steps_++ % slow_rank_window)] = computed_s;
}

double StepTimes::median_s() const {
  return steps_ < slow_rank_window ? 0 : median({last_.begin(), last_.end()});
}

std::vector<SlowRank> SlowRanks::observe(std::span<const RankTime> ranks) {
  // 1. A window that nobody has steps of yet in common is not judged. The first one is no measure: memory is
  // touched and libraries choose their algorithms there.
  if (ranks.empty()) return {};
  const int64_t steps = std::ranges::min_element(ranks, {}, &RankTime::steps)->steps;
  if (judged_steps_ == 0) judged_steps_ = slow_rank_window;
  if (steps < judged_steps_ + slow_rank_window) return {};
  judged_steps_ = steps;
  // 2. Everyone against the others of its stage.
  std::set<int> slow;
  std::vector<SlowRank> named;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const RankTime& own = ranks[rank];
    std::vector<double> peers;
    for (size_t other = 0; other < ranks.size(); ++other)
      if (other != rank && ranks[other].stage == own.stage) peers.push_back(pace(ranks[other]));
    const bool is_known =
        !peers.empty() && own.median_s > 0 && std::ranges::all_of(peers, [](double s) { return s > 0; });
    if (!is_known) continue;
    const double usual = median(peers), factor = pace(own) / usual;
    if (!(factor >= factor_)) continue;
    const int number = static_cast<int>(rank);
    slow.insert(number);
    if (suspects_.contains(number) && named_.insert(number).second)
      named.push_back(
          {.rank = number, .factor = factor, .median_s = own.median_s, .peers_s = usual * own.weight});
  }
  suspects_ = std::move(slow);
  return named;
}

}  // namespace ptrain
