// The ways to train the same model on the same rows and ranks that `ptrain verify` compares, each with what
// is expected of it. Pure; verify.h runs them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/model/spec.h"
#include "src/train/run_plan.h"

namespace ptrain {

/// What is due when another plan takes the same steps.
enum class Expected : uint8_t {
  same_bits,
  same_layers,  // a micro-batch meets the same arithmetic; sums over micro-batches and ranks may differ
  same_model    // the layers' own sums have another order too
};

struct Variant {
  std::string name;  // "parallel.zero = 3"
  Plan plan;
  Expected expected = Expected::same_bits;
};

struct VariantRequest {
  int world = 1;
  Compute compute;
  std::span<const std::string> hosts = {};  // of each rank; empty = not known
  size_t most = 8;
};

/// The same again, and changes of one choice each of the run's own plan: pipeline, tensor, ZeRO, micro-batch,
/// recompute, schedule, sequence parallelism. With `most` >= 8 every choice that can be changed is changed at
/// least once. What a plan refuses is left out, and tensor groups that would span hosts where the
/// configuration does not allow them.
std::vector<Variant> variants_of(const Config& config, const ModelSpec& spec, const Plan& own,
                                 const VariantRequest& request);

/// same_layers: one tensor split, sequence parallelism and micro-batch. Of these same_bits where the same
/// numbers are added in the same order: one grid and cut into stages, whatever schedule and recompute. ZeRO 0
/// and 1 add alike; 2 and 3 sum over ranks after each micro-batch, so they do where there is one. With sums
/// that no grid changes: for every pipeline, data split and schedule.
Expected expected_of(const Plan& reference, const Plan& other);

}  // namespace ptrain
