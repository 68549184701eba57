// What the words met lately became: pieces of at most 15 bytes and three ids, the newest winning its place.
// Bounded, and only a shortcut: a piece that is not found here is encoded.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/hash.h"

namespace ptrain {

class WordCache {
 public:
  static constexpr size_t max_piece_bytes = 15;
  static constexpr size_t max_ids = 3;

  /// A piece as two numbers: its bytes, and its length in the top byte, so that no two pieces are equal.
  struct Key {
    uint64_t low = 0, high = 0;
    bool operator==(const Key&) const = default;
  };

  struct Entry {
    Key key;  // all zero: free
    std::array<int32_t, max_ids> ids;
    uint32_t num_ids;
  };

  WordCache() : entries_(size_t{1} << log2_entries, Entry{}) {}

  /// The key of a piece of 1 to 15 bytes.
  static Key key_of(std::string_view piece) {
    const char* p = piece.data();
    const size_t n = piece.size();
    const uint64_t length = static_cast<uint64_t>(n) << 56;
    if (n > 8) return {load_bytes(p, 8), load_bytes(p + n - 8, 8) >> (8 * (16 - n)) | length};
    if (n == 8) return {load_bytes(p, 8), length};
    if (n >= 4) return {load_bytes(p, 4) | load_bytes(p + n - 4, 4) << (8 * (n - 4)), length};
    uint64_t low = static_cast<unsigned char>(p[0]);
    if (n > 1) low |= load_bytes(p + n - 2, 2) << (8 * (n - 2));
    return {low, length};
  }

  /// The one place that a key may have.
  Entry& place_of(const Key& key) {
    const uint64_t hash = fold_product(key.low ^ 0xD6E8FEB86659FD93u, key.high ^ 0x9E3779B97F4A7C15u);
    return entries_[hash >> (64 - log2_entries)];
  }

 private:
  static constexpr int log2_entries = 14;  // 512 KiB
  std::vector<Entry> entries_;
};

}  // namespace ptrain
