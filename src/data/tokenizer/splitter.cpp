// One function for each pattern, its alternatives tried in the pattern's own order.
#include "src/data/tokenizer/splitter.h"

#include <string>

#include "src/data/tokenizer/regex.h"
#include "src/data/tokenizer/unicode.h"

namespace ptrain {
namespace {

constexpr uint32_t num_codes = 0x40000;

struct Character {
  uint8_t cls;
  uint32_t size_bytes;
};

Character at(const CharacterClasses& classes, std::string_view text, size_t i) {
  const auto byte = static_cast<unsigned char>(text[i]);
  if (byte < 0x80) return {classes.of(byte), 1};
  const CodePoint code = decode_utf8(text.data() + i);
  return {classes.of(code.value), code.size_bytes};
}

/// The end of the run of characters of these classes.
size_t skip(const CharacterClasses& classes, std::string_view text, size_t i, uint8_t wanted) {
  while (i < text.size()) {
    const Character c = at(classes, text, i);
    if (!(c.cls & wanted)) break;
    i += c.size_bytes;
  }
  return i;
}

bool is_line_end(char c) {
  return c == '\r' || c == '\n';
}

/// \s+(?!\S)|\s+ : a run of white space, but its last character is left to the word that follows.
size_t white_space_end(const CharacterClasses& classes, std::string_view text, size_t begin) {
  const size_t end = skip(classes, text, begin, class_space);
  if (end == text.size()) return end;
  const size_t last = previous_utf8(text, end);
  return last > begin ? last : end;
}

/// The end of 's 't 're 've 'm 'll 'd behind an apostrophe, or `begin`. `fold` brings a byte to lower case or
/// not.
template <class Fold>
size_t contraction_end(std::string_view text, size_t begin, Fold fold) {
  if (text[begin] != '\'' || begin + 1 >= text.size()) return begin;
  const char first = fold(text[begin + 1]);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return begin + 2;
  if (begin + 2 >= text.size()) return begin;
  const char second = fold(text[begin + 2]);
  const bool is_long =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return is_long ? begin + 3 : begin;
}

char as_is(char c) {
  return c;
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

}  // namespace

CharacterClasses::CharacterClasses() : classes_(num_codes, uint8_t{class_other}) {
  std::string all;
  for (uint32_t code = 0; code < num_codes; ++code) {
    if (code < 0xD800 || code > 0xDFFF) append_utf8(all, code);
    if (is_numeric(code)) classes_[code] |= class_numeric;
  }
  RegexScratch scratch;
  const auto mark = [&](std::string_view pattern, uint8_t cls) {
    for_each_match(Regex(pattern, "character classes"), all, scratch, [&](Match run) {
      for (size_t i = run.begin; i < run.end;) {
        const CodePoint code = decode_utf8(all.data() + i);
        classes_[code.value] = static_cast<uint8_t>((classes_[code.value] & ~class_other) | cls);
        i += code.size_bytes;
      }
    });
  };
  mark(R"(\p{L}+)", class_letter);
  mark(R"(\p{N}+)", class_number);
  mark(R"(\s+)", class_space);
}

size_t Gpt2Splitter::next(std::string_view text, size_t begin) const {
  if (const size_t end = contraction_end(text, begin, as_is); end > begin) return end;
  size_t i = begin;
  Character c = at(*classes_, text, i);
  if (text[i] == ' ' && i + 1 < text.size()) {
    const Character after = at(*classes_, text, i + 1);
    if (!(after.cls & class_space)) {
      ++i;
      c = after;
    }
  }
  if (c.cls & class_space) return white_space_end(*classes_, text, begin);
  return skip(*classes_, text, i + c.size_bytes, c.cls & (class_letter | class_number | class_other));
}

size_t Llama3Splitter::next(std::string_view text, size_t begin) const {
  if (const size_t end = contraction_end(text, begin, lower); end > begin) return end;
  // U+017F is an s to a pattern that ignores case.
  if (text.substr(begin).starts_with("'\u017F")) return begin + 3;
  const Character c = at(*classes_, text, begin);
  size_t i = begin + c.size_bytes;
  if (c.cls & class_letter) return skip(*classes_, text, i, class_letter);
  if (c.cls & class_number) {
    for (int digits = 1; digits < max_digits_ && i < text.size(); ++digits) {
      const Character digit = at(*classes_, text, i);
      if (!(digit.cls & class_number)) break;
      i += digit.size_bytes;
    }
    return i;
  }
  if (!is_line_end(text[begin]) && i < text.size() && (at(*classes_, text, i).cls & class_letter)) {
    return skip(*classes_, text, i, class_letter);
  }
  const bool is_blank = text[begin] == ' ';
  if ((c.cls & class_other) || (is_blank && i < text.size() && (at(*classes_, text, i).cls & class_other))) {
    i = skip(*classes_, text, i, class_other);
    while (i < text.size() && is_line_end(text[i])) ++i;
    return i;
  }
  // \s*[\r\n]+ : up to the last line end of the run of white space.
  const size_t run_end = skip(*classes_, text, begin, class_space);
  for (size_t end = run_end; end > begin; --end) {
    if (is_line_end(text[end - 1])) return end;
  }
  return white_space_end(*classes_, text, begin);
}

size_t find_numeric(const CharacterClasses& classes, std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Character c = at(classes, text, begin);
    if (c.cls & class_numeric) break;
    begin += c.size_bytes;
  }
  return begin;
}

}  // namespace ptrain
