// A few numbers that stand for a tensor when runs are compared: the same on every grid for equal values, and
// their differences tell how far unequal ones are apart. Not a checksum of files: see crc32c.h.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/train/trainer.h"

namespace ptrain {

struct Fingerprint {
  static constexpr size_t projections = 4;

  /// Sum modulo 2^64 of a hash of each element's (name, global index, bits): integers, so that no order and
  /// no split changes it. -0 counts as 0.
  uint64_t bits = 0;
  /// Sums of s_i * value_i with random signs s_i by (name, global index): the expected square of the
  /// difference of two tensors' sums is the squared norm of their difference (Alon, Matias, Szegedy: "The
  /// space complexity of approximating the frequency moments", 1996).
  std::array<double, projections> sums{};
  double squares = 0;  // of all elements
  int64_t elements = 0;

  double norm() const;
};

/// Adds elements [first, first + values.size()) of a tensor.   stream: hash_of its name
void add_elements(uint64_t stream, int64_t first, std::span<const float> values, Fingerprint& sum);

/// Estimate of the norm of the difference. Its square has four degrees of freedom: less than a tenth or more
/// than three times the truth comes in one of 5,000 cases.
double distance(const Fingerprint& a, const Fingerprint& b);

/// HF names of the tensors that are trained, in the order of the layers, a tied table once.
std::vector<std::string> trained_tensors(const Plan& plan);

/// Collective: of each of trained_tensors(). Gradients: summed over the step's rows and over ranks, between a
/// step and the next, divided by `loss_scale`. Weights: master values. Each element is read where it is
/// updated and counted.
std::vector<Fingerprint> fingerprints_of_gradients(Trainer& trainer, double loss_scale, Communicator& world);
std::vector<Fingerprint> fingerprints_of_weights(Trainer& trainer, Communicator& world);

/// Collective: names of tensors of which data ranks that hold them whole hold different values. Under ZeRO-3
/// nobody does.
std::vector<std::string> unequal_replicas(Trainer& trainer, Communicator& world);

}  // namespace ptrain
