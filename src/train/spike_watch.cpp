#include "src/train/spike_watch.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ptrain {
namespace {

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::optional<Spike> SpikeWatch::look(double value) {
  std::optional<Spike> spike;
  if (threshold_ > 0 && last_.size() >= enough) {
    const double median = median_of({last_.begin(), last_.end()});
    std::vector<double> deviations;
    for (const double each : last_) deviations.push_back(std::abs(each - median));
    constexpr double of_a_normal = 1.4826;  // standard deviation / median absolute deviation
    const double deviation = std::max(of_a_normal * median_of(deviations), smallest_deviation_);
    const double score = (value - median) / deviation;
    if (score >= threshold_ && !is_told_)
      spike = {.value = value, .median = median, .score = score, .window = std::ssize(last_)};
    if (score >= threshold_) is_told_ = true;
    if (score < threshold_ / 2) is_told_ = false;
  }
  last_.push_back(value);
  if (last_.size() > window) last_.pop_front();
  return spike;
}

}  // namespace ptrain
