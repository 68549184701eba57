// A fast hash of bytes for tables and content keys. Not for anything that must withstand an adversary.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace ptrain {

/// Both halves of the 128-bit product, folded: every input bit reaches every output bit.
inline uint64_t fold_product(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

/// The next `size` (at most 8) bytes as a little-endian number.
inline uint64_t load_bytes(const char* p, size_t size) {
  uint64_t word = 0;
  std::memcpy(&word, p, size);
  return word;
}

inline uint64_t hash_bytes(std::string_view text, uint64_t seed = 0x9E3779B97F4A7C15u) {
  constexpr uint64_t odd = 0xD6E8FEB86659FD93u;
  uint64_t h = fold_product(seed ^ text.size(), odd);
  const char* p = text.data();
  size_t left = text.size();
  for (; left >= 8; p += 8, left -= 8) h = fold_product(h ^ load_bytes(p, 8), odd);
  if (left > 0) h = fold_product(h ^ load_bytes(p, left), odd);
  return fold_product(h ^ odd, odd);
}

}  // namespace ptrain
