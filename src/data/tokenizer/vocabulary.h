// Tokens and their ids, both ways: one block of bytes, one flat hash table.
// Not for added tokens, which match by other rules (added_tokens.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

/// One "token": id of a vocabulary file.
struct VocabularyEntry {
  std::string token;
  int32_t id;
};

/// Ids of strangers' files stay below this: the table of tokens by id is as long as the largest.
constexpr int64_t max_token_ids = int64_t{1} << 22;

class Vocabulary {
 public:
  /// Errors: ExitCode::input naming `where`: an id below 0 or at least max_token_ids, an id or a token twice.
  Vocabulary(const std::vector<VocabularyEntry>& entries, std::string_view where);

  /// The id of a token, or -1.
  int32_t find(std::string_view token) const;

  /// The token of an id; a null view for ids without one, negative ones included.
  std::string_view token(int32_t id) const;

  /// Largest id + 1.
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  struct Text {
    uint32_t begin = 0;
    int32_t size_bytes = -1;  // -1: no token has this id
  };
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;  // -1: free
  };

  std::string bytes_;         // all tokens, one after the other
  std::vector<Text> tokens_;  // by id
  std::vector<Slot> slots_;   // a power of two of them, at most half full
};

}  // namespace ptrain
