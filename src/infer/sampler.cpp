#include "src/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ptrain {

int32_t Sampler::next(std::span<const float> logits) {
  if (rules_.temperature == 0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  // Candidates by falling logit; ties by id, so that the order is one.
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto is_before = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  size_t kept = order_.size();
  if (rules_.top_k > 0) kept = std::min(kept, static_cast<size_t>(rules_.top_k));
  if (kept < order_.size() || rules_.top_p < 1) {
    std::partial_sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(kept), order_.end(),
                      is_before);
  }
  const float largest = rules_.top_k > 0 || rules_.top_p < 1
                            ? logits[static_cast<size_t>(order_[0])]
                            : *std::max_element(logits.begin(), logits.end());
  weights_.resize(kept);
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    const double shifted =
        static_cast<double>(logits[static_cast<size_t>(order_[i])]) - static_cast<double>(largest);
    sum += weights_[i] = std::exp(shifted / rules_.temperature);
  }
  if (rules_.top_p < 1) {
    double mass = 0;
    size_t count = 0;
    while (count < kept && mass < rules_.top_p * sum) mass += weights_[count++];
    kept = std::max<size_t>(count, 1);
    sum = mass;
  }
  double target = rng_.uniform(draws_++) * sum;
  for (size_t i = 0; i + 1 < kept; ++i) {
    target -= weights_[i];
    if (target < 0) return order_[i];
  }
  return order_[kept - 1];
}

}  // namespace ptrain
