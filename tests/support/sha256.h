// SHA-256 (FIPS 180-4), to compare with digests that other programs made.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

namespace ptrain {

namespace sha256_detail {

/// The first 32 bits of the fractional part of a root of a prime; bits by integer arithmetic, no table to
/// mistype.
inline uint32_t root_bits(uint32_t prime, int degree) {
  // The largest x with x^degree <= prime * 2^(32 * degree).
  unsigned __int128 x = 0;
  for (int bit = 36; bit >= 0; --bit) {
    const unsigned __int128 candidate = x | static_cast<unsigned __int128>(1) << bit;
    // x < 2^37, so x^3 needs 111 bits and prime * 2^96 needs 105: both fit.
    const unsigned __int128 power = degree == 2 ? candidate * candidate : candidate * candidate * candidate;
    if (power <= static_cast<unsigned __int128>(prime) << (32 * degree)) x = candidate;
  }
  return static_cast<uint32_t>(x);
}

inline std::array<uint32_t, 64> primes() {
  std::array<uint32_t, 64> result{};
  size_t count = 0;
  for (uint32_t n = 2; count < result.size(); ++n) {
    bool is_prime = true;
    for (uint32_t d = 2; d * d <= n; ++d) is_prime = is_prime && n % d != 0;
    if (is_prime) result[count++] = n;
  }
  return result;
}

inline void add_block(std::array<uint32_t, 8>& state, const unsigned char* block,
                      const std::array<uint32_t, 64>& constants) {
  std::array<uint32_t, 64> w{};
  for (size_t i = 0; i < 16; ++i) {
    w[i] = uint32_t{block[4 * i]} << 24 | uint32_t{block[4 * i + 1]} << 16 | uint32_t{block[4 * i + 2]} << 8 |
           uint32_t{block[4 * i + 3]};
  }
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t a = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t b = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  std::array<uint32_t, 8> s = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t e = std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25);
    const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
    const uint32_t one = s[7] + e + choice + constants[i] + w[i];
    const uint32_t a = std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22);
    const uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    s = {one + a + majority, s[0], s[1], s[2], s[3] + one, s[4], s[5], s[6]};
  }
  for (size_t i = 0; i < 8; ++i) state[i] += s[i];
}

}  // namespace sha256_detail

/// 64 hexadecimal digits.
inline std::string sha256(const void* data, size_t bytes) {
  const std::array<uint32_t, 64> primes = sha256_detail::primes();
  std::array<uint32_t, 64> constants{};
  std::array<uint32_t, 8> state{};
  for (size_t i = 0; i < 64; ++i) constants[i] = sha256_detail::root_bits(primes[i], 3);
  for (size_t i = 0; i < 8; ++i) state[i] = sha256_detail::root_bits(primes[i], 2);
  const auto* from = static_cast<const unsigned char*>(data);
  size_t left = bytes;
  for (; left >= 64; left -= 64, from += 64) sha256_detail::add_block(state, from, constants);
  std::array<unsigned char, 128> tail{};
  if (left > 0) std::memcpy(tail.data(), from, left);
  tail[left] = 0x80;
  const size_t tail_bytes = left < 56 ? 64 : 128;
  for (size_t i = 0; i < 8; ++i) {
    tail[tail_bytes - 1 - i] = static_cast<unsigned char>(uint64_t{bytes} * 8 >> (8 * i));
  }
  for (size_t at = 0; at < tail_bytes; at += 64) sha256_detail::add_block(state, tail.data() + at, constants);
  std::string text;
  for (const uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
  }
  return text;
}

}  // namespace ptrain
