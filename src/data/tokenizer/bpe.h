// Byte-pair encoding of one piece of text (Sennrich et al. 2016): the pair of neighbours with the lowest rank
// is merged, the leftmost first, until no pair is left.
// Not for cutting a text into pieces, nor for added tokens; those come before.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/file.h"
#include "src/data/tokenizer/vocabulary.h"

namespace ptrain {

/// What a piece's characters are.
enum class Alphabet {
  utf8,   // the vocabulary spells characters
  bytes,  // the vocabulary spells each byte as the byte-level character that stands for it
};

/// The working space of encode(), kept between calls so that nothing is allocated for each piece.
struct BpeScratch {
  struct Symbol {
    int32_t id;
    int32_t previous;  // -1: none
    int32_t next;      // -1: none
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t left, right;  // the ids it was made for: out of date when the symbols have changed
  };
  std::vector<int32_t> ids;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::string text;
};

class Bpe {
 public:
  /// Reads file.settings["model"]. `vocabulary` must outlive it.
  /// Errors: ExitCode::input with the path and the key: another model than BPE, merges of unknown tokens.
  Bpe(const TokenizerFile& file, const Vocabulary& vocabulary, Alphabet alphabet);

  /// Appends the ids of one piece; valid UTF-8, or any bytes with Alphabet::bytes.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const;

  /// True where no token holds `sign` right after something else, so that cutting before a `sign` that
  /// follows something else changes no id.
  bool may_cut_before(std::string_view sign) const;

 private:
  struct Merge {
    uint64_t pair = ~uint64_t{0};  // left << 32 | right; all ones: free
    uint32_t rank = 0;
    int32_t id = -1;
  };

  const Merge* find_merge(int32_t left, int32_t right) const {
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
    for (size_t i = (pair * 0x9E3779B97F4A7C15u) >> shift_;; i = (i + 1) & (merges_.size() - 1)) {
      if (merges_[i].pair == pair) return &merges_[i];
      if (merges_[i].pair == ~uint64_t{0}) return nullptr;
    }
  }

  void read_settings(const TokenizerFile& file);
  void read_merges(const TokenizerFile& file);
  void first_ids_of_bytes(std::string_view piece, BpeScratch& scratch) const;
  void first_ids_of_characters(std::string_view piece, BpeScratch& scratch) const;
  bool append_byte_ids(std::string_view text, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids) const;
  void merge_long(BpeScratch& scratch) const;
  void push_candidate(BpeScratch& scratch, int32_t position) const;
  struct Later;

  const Vocabulary* vocabulary_;
  Alphabet alphabet_;
  std::vector<Merge> merges_;  // a power of two of them, at most half full
  int shift_ = 0;
  std::vector<int32_t> merged_ids_;  // every id that a merge makes
  std::vector<int32_t>
      id_of_byte_;  // Alphabet::bytes: the first id of each byte; "<0xNN>" with byte_fallback
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::string prefix_;  // of every character but a piece's first
  std::string suffix_;  // of a piece's last character
};

}  // namespace ptrain
