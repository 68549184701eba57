// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/base/rng.h"

namespace ptrain {

struct SamplingRules {
  double temperature = 0;  // 0 = the largest logit
  int64_t top_k = 0;       // keep the k largest; 0 = all
  double top_p = 1;        // keep the fewest whose probabilities sum to at least p
  uint64_t seed = 1;
};

/// The same choice for the same (logits, seed, number of the draw), whatever came before.
class Sampler {
 public:
  explicit Sampler(const SamplingRules& rules) : rules_(rules), rng_(rules.seed, hash_of("sampler")) {}

  int32_t next(std::span<const float> logits);

 private:
  SamplingRules rules_;
  Rng rng_;
  uint64_t draws_ = 0;
  std::vector<int32_t> order_;
  std::vector<double> weights_;
};

}  // namespace ptrain
