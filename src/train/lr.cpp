#include "src/train/lr.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ptrain {

double learning_rate(const Config::Optimizer& optimizer, int64_t step, int64_t steps) {
  const double peak = optimizer.learning_rate;
  const double lowest = optimizer.min_ratio * peak;
  const auto s = static_cast<double>(step);
  const auto w = static_cast<double>(optimizer.warmup_steps);
  const auto S = static_cast<double>(steps);
  if (step <= optimizer.warmup_steps) return peak * s / w;
  const double x = steps > optimizer.warmup_steps ? std::clamp((s - w) / (S - w), 0.0, 1.0) : 1.0;
  switch (optimizer.schedule) {
    case Config::LearningRate::constant:
      return peak;
    case Config::LearningRate::linear:
      return peak + (lowest - peak) * x;
    case Config::LearningRate::cosine:
      return lowest + (peak - lowest) * (1 + std::cos(std::numbers::pi * x)) / 2;
    case Config::LearningRate::wsd: {
      const double decay_steps = optimizer.decay_fraction * S;
      const double into_decay = s - (S - decay_steps);
      if (into_decay <= 0) return peak;
      return peak + (lowest - peak) * std::min(1.0, into_decay / decay_steps);
    }
  }
  return peak;
}

}  // namespace ptrain
