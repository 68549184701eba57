// Counter-based random numbers: a pure function of (seed, stream, index), so that every grid draws the same
// bits. Philox-4x32-10 after Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3"
// (2011).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ptrain {

/// Four 32-bit words for one 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint64_t key);

/// 64-bit FNV-1a; names a stream after a text, such as a weight's HF name.
uint64_t hash_of(std::string_view text);

/// Independent streams of numbers by position.
class Rng {
 public:
  Rng(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  /// 64 random bits for position `index`.
  uint64_t bits(uint64_t index) const;
  /// Uniform in [0, 1), 53 bits.
  double uniform(uint64_t index) const;
  /// Standard normal (Box-Muller); two neighbours share a draw.
  double normal(uint64_t index) const;
  /// Uniform in [0, bound), without bias beyond 2^-64 * bound.
  uint64_t below(uint64_t index, uint64_t bound) const;

 private:
  uint64_t seed_;
  uint64_t stream_;
};

}  // namespace ptrain
