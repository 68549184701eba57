// Whether two runs of the same steps agree: the bits where those are due, else an error model. Pure.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "src/model/spec.h"
#include "src/train/fingerprint.h"
#include "src/train/variants.h"

namespace ptrain {

/// What a plan showed in two steps.
struct Observed {
  std::array<StepResult, 2> steps;
  std::vector<Fingerprint> loaded;     // weights before the first step
  std::vector<Fingerprint> gradients;  // of the first step
  std::vector<Fingerprint> weights;    // after the second step
  /// Tensors that are not the same on all data ranks: before the first step, after the second.
  std::array<std::vector<std::string>, 2> unequal_replicas;
};

/// How far two plans may be apart that add the same numbers in another order.
struct Tolerances {
  double loss = 0;       // relative
  double grad_norm = 0;  // relative
  double gradient = 0;   // of a tensor: norm of the difference over the norm
  double noise = 0;      // over the norm of all gradients: for tensors whose gradient is rounding alone
};

/// Where the layers' own sums differ. Loss and norm of fp32: 5e-6 and 5e-5, as over the loss curves of the
/// tests on every grid; 16 bits: errors of half a unit for each activation, random in sign, mostly cancel in
/// a loss and add up as squares in a norm: 2^-8 and 2^-6; fp8, operands with 3 bits: 2^-5 and 2^-3. A
/// tensor's gradient: a value has passed some 12 roundings a block, each of about a quarter of the unit u of
/// the storage, plus that of a sum of n products in f32; twice, since two plans err, and 4 for the tail:
/// (u + 2^-23 sqrt(n)) sqrt(24 L), at most 1/2. Example, 32 blocks, n = 11008: 3.5e-4 in fp32, 0.22 in bf16.
Tolerances tolerances_of_layers(Config::Precision precision, const ModelSpec& spec);

/// Where sums over `addends` micro-batches differ, in f32: 4 * 2^-23 sqrt(addends) of loss, norm and tensors.
Tolerances tolerances_of_sums(int64_t addends);

struct Deviation {
  std::string what;  // "loss", "gradient of model.norm.weight"
  double size = 0;   // relative
  double allowed = 0;
};

struct Comparison {
  std::array<Deviation, 2> largest;      // of each step, by its share of what is allowed
  std::array<bool, 2> has_difference{};  // of each step
  /// The first thing that differs, or empty: "step 1: gradient of … differs by 1.2e-03 of its norm (allowed
  /// 2.0e-05)". Gradients are looked at in the order in which backward makes them.
  std::string difference;

  bool agrees() const { return difference.empty(); }
};

/// What a step of a variant is held to. Behind the first update all differ by what the layers may.
struct AllTolerances {
  Tolerances layers, sums;
};

/// What a plan shows to be wrong with itself, or empty.
std::string objection_to_replicas(const Observed& seen);

/// names: of the fingerprints, in the order of the layers. Weights before the first step must have the same
/// bits in any case.
Comparison compare(const std::vector<std::string>& names, const Observed& reference, const Observed& other,
                   Expected expected, const AllTolerances& tolerances);

}  // namespace ptrain
