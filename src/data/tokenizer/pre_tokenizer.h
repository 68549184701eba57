// Cuts normalised text into the pieces that are then encoded one by one.
// Not for added tokens (cut out before) and not for merging (bpe.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/bpe.h"
#include "src/data/tokenizer/regex.h"
#include "src/data/tokenizer/splitter.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// Part of a text that a pattern matched, or that lies between matches.
struct Cut {
  size_t begin;
  size_t end;
  bool is_match;
};

/// The working space of split().
struct PreTokenizerScratch {
  std::string current;  // the text as the steps have rewritten it
  std::string next;
  std::vector<Match> pieces;  // of `current`, or of the text itself as long as nothing was rewritten
  std::vector<Match> next_pieces;
  std::vector<Cut> cuts;
  RegexScratch regex;
};

/// Whether patterns that are known may be cut by hand (splitter.h) or only by PCRE2: for tests that compare.
enum class Shortcuts { use, avoid };

class PreTokenizer {
 public:
  /// Reads a "pre_tokenizer" of a tokenizer.json; null cuts nothing. `may_keep_bytes`: whether the model can
  /// take bytes instead of their byte-level spelling.
  /// Errors: ExitCode::input naming `where`: kinds and settings that are not supported.
  PreTokenizer(const Json& settings, const std::string& where, bool may_keep_bytes,
               Shortcuts shortcuts = Shortcuts::use);
  ~PreTokenizer();

  /// What the pieces are made of: bytes where the last step would have spelled them byte-level.
  Alphabet alphabet() const { return alphabet_; }

  /// Calls emit(std::string_view piece) for each piece of `text`, none of them empty. `is_start`: the text is
  /// the beginning of what the user gave. Pieces hold until the next call.
  template <class Emit>
  void split(std::string_view text, bool is_start, PreTokenizerScratch& scratch, Emit&& emit) const {
    switch (known_) {
      case Known::gpt2:
        return cut_by(Gpt2Splitter(*classes_), text, emit);
      case Known::digits_gpt2:
        return cut_digits(text, emit);
      case Known::llama3:
        return cut_by(Llama3Splitter(*classes_, 3), text, emit);
      case Known::qwen2:
        return cut_by(Llama3Splitter(*classes_, 1), text, emit);
      case Known::none:
        break;
    }
    const std::string_view source = run_steps(text, is_start, scratch);
    for (const Match& piece : scratch.pieces) emit(source.substr(piece.begin, piece.end - piece.begin));
  }

  struct Step;

 private:
  enum class Known { none, gpt2, digits_gpt2, llama3, qwen2 };

  template <class Splitter, class Emit>
  static void cut_by(const Splitter& splitter, std::string_view text, Emit&& emit) {
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
      end = splitter.next(text, begin);
      emit(text.substr(begin, end - begin));
    }
  }

  /// Digits one by one, and what lies between each as a text of its own.
  template <class Emit>
  void cut_digits(std::string_view text, Emit&& emit) const {
    for (size_t begin = 0; begin < text.size();) {
      const size_t digit = find_numeric(*classes_, text, begin);
      cut_by(Gpt2Splitter(*classes_), text.substr(begin, digit - begin), emit);
      if (digit == text.size()) return;
      const size_t size_bytes = decode_utf8(text.data() + digit).size_bytes;
      emit(text.substr(digit, size_bytes));
      begin = digit + size_bytes;
    }
  }

  static Known recognize(const std::vector<Json>& flat);
  std::string_view run_steps(std::string_view text, bool is_start, PreTokenizerScratch& scratch) const;

  std::vector<Step> steps_;
  Alphabet alphabet_ = Alphabet::utf8;
  Known known_ = Known::none;
  std::unique_ptr<const CharacterClasses> classes_;  // only for known patterns
};

}  // namespace ptrain
