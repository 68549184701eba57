// Sets of characters as Oniguruma's classes build them, and how PCRE2 spells them.
// Not a reader of patterns; onig_pattern.cpp is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

// The insides of PCRE2 classes. Both libraries name these sets differently, so they are spelled out.
constexpr std::string_view space_items =
    R"(\t-\r\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view word_items = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of classes, in \w, \W, \b and \B, Oniguruma looks Latin-1 up in another table, by which six
// superscripts and fractions are word characters too.
constexpr std::string_view latin1_word_items = R"(\xB2\xB3\xB9\xBC-\xBE)";
constexpr std::string_view hex_items = "0-9a-fA-F";

/// One set of characters: the union of plain items and of nested sets, cut with `cuts`, then maybe turned
/// round.
struct CharacterSet {
  std::string items;                 // what stands between the brackets of a PCRE2 class
  std::vector<CharacterSet> nested;  // members that one PCRE2 class cannot hold
  std::vector<CharacterSet> cuts;    // each && that follows
  bool is_negated = false;

  bool is_flat() const { return nested.empty() && cuts.empty(); }
};

/// A PCRE2 expression that matches exactly one character of the set.
std::string expression_of(const CharacterSet& set);

/// Makes `member` part of the union.
void join(CharacterSet& set, CharacterSet&& member);

/// A character that stands for itself everywhere in a PCRE2 pattern.
std::string escaped(uint32_t code);

/// The items of \p{name}. A name that is neither a category nor in our table is taken for a script.
std::string property_items(std::string_view name);

}  // namespace ptrain
