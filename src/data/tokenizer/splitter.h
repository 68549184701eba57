// The patterns of GPT-2, Llama 3 and Qwen 2 by hand: the same pieces as the regular expressions, many times
// as fast on text that is mostly ASCII.
// Not for other patterns; those go through regex.h.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/utf8.h"

namespace ptrain {

/// The pattern that ByteLevel splits by (GPT-2: Radford et al. 2019).
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The patterns of Llama 3 and of Qwen 2: numbers in threes, or digit by digit.
constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// What a character is to these patterns; exactly one of the first four.
enum CharacterClass : uint8_t {
  class_letter = 1,   // \p{L}
  class_number = 2,   // \p{N}
  class_space = 4,    // \s
  class_other = 8,    // none of these
  class_numeric = 16  // also: what the Digits pre-tokenizer calls a digit
};

/// The classes of all characters, taken from the libraries that the slow path uses, so that both agree.
class CharacterClasses {
 public:
  CharacterClasses();

  uint8_t of(uint32_t code) const { return code < classes_.size() ? classes_[code] : uint8_t{class_other}; }

 private:
  std::vector<uint8_t> classes_;  // of planes 0 to 3; the others hold neither letters nor numbers nor space
};

/// Cuts valid UTF-8 as gpt2_pattern does. next() gives the end of the piece that begins at `begin`.
class Gpt2Splitter {
 public:
  explicit Gpt2Splitter(const CharacterClasses& classes) : classes_(&classes) {}
  size_t next(std::string_view text, size_t begin) const;

 private:
  const CharacterClasses* classes_;
};

/// Cuts valid UTF-8 as llama3_pattern (max_digits 3) or qwen2_pattern (1) do.
class Llama3Splitter {
 public:
  Llama3Splitter(const CharacterClasses& classes, int max_digits)
      : classes_(&classes), max_digits_(max_digits) {}
  size_t next(std::string_view text, size_t begin) const;

 private:
  const CharacterClasses* classes_;
  int max_digits_;
};

/// The begin of the first character at `begin` or later that Digits takes for a digit, or the text's end.
size_t find_numeric(const CharacterClasses& classes, std::string_view text, size_t begin);

}  // namespace ptrain
