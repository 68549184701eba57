// Added tokens: found in the text as they stand, before anything else cuts it.
// Not for the vocabulary's own tokens, and not for adding BOS or EOS (post_processor.h).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/file.h"
#include "src/data/tokenizer/normalizer.h"
#include "src/data/tokenizer/vocabulary.h"

namespace ptrain {

struct AddedToken {
  int32_t id;
  std::string content;
  std::string pattern;  // what is looked for: the content, normalised if is_normalized
  bool is_single_word;  // only with no word character on either side
  bool strips_left;     // swallows the white space before it
  bool strips_right;
  bool is_normalized;  // looked for in the normalised text instead of the raw one
  bool is_special;     // left out by Skip::special
};

/// A stretch of text between added tokens, or one of them.
struct Segment {
  std::string_view text;
  int32_t id;  // -1: text
};

/// Finds a set of patterns, leftmost first, the longest of those that begin there.
class PatternSet {
 public:
  /// `tokens` must outlive it and stay where they are.
  explicit PatternSet(std::vector<const AddedToken*> tokens);

  bool is_empty() const { return tokens_.empty(); }

  /// Appends the segments of `text`, none of them empty text.
  void split(std::string_view text, std::vector<Segment>& out) const;

 private:
  struct Node {
    std::vector<std::pair<char, uint32_t>> children;  // sorted by byte
    const AddedToken* token = nullptr;                // ends here
  };
  const AddedToken* longest_at(std::string_view text, size_t at) const;
  size_t next_candidate(std::string_view text, size_t at) const;

  std::vector<const AddedToken*> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> begins_{};  // bytes with which a pattern begins
  int only_first_byte_ = -1;        // if all begin with the same
};

class AddedTokens {
 public:
  /// Reads file.settings["added_tokens"].
  /// Errors: ExitCode::input with the path and the entry: an id out of range, used by another token, or other
  /// than the vocabulary's.
  AddedTokens(const TokenizerFile& file, const Vocabulary& vocabulary, const Normalizer& normalizer);
  AddedTokens(const AddedTokens&) = delete;
  AddedTokens& operator=(const AddedTokens&) = delete;

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const PatternSet& in_raw_text() const { return raw_; }
  const PatternSet& in_normalized_text() const { return normalized_; }

 private:
  std::vector<AddedToken> tokens_;  // in file order
  PatternSet raw_;
  PatternSet normalized_;
};

}  // namespace ptrain
