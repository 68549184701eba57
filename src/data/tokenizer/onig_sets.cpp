// Where the two libraries agree a class is passed on; where they do not it becomes a group with look-aheads.
#include "src/data/tokenizer/onig_sets.h"

#include <array>
#include <cctype>
#include <utility>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

/// Letters of a property name that count: Uppercase_Letter and uppercase letter are one.
std::string property_key(std::string_view name) {
  std::string key;
  for (char c : name) {
    if (c != '_' && c != '-' && c != ' ')
      key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return key;
}

}  // namespace

std::string expression_of(const CharacterSet& set) {
  if (set.is_flat() && !set.items.empty()) return (set.is_negated ? "[^" : "[") + set.items + "]";
  std::vector<std::string> members;
  if (!set.items.empty()) members.push_back("[" + set.items + "]");
  for (const CharacterSet& member : set.nested) members.push_back(expression_of(member));
  std::string any_of;
  for (const std::string& member : members) any_of += (any_of.empty() ? "" : "|") + member;
  if (members.size() != 1) any_of = "(?:" + (members.empty() ? "(?!)" : any_of) + ")";
  std::string all;
  for (const CharacterSet& cut : set.cuts) all += "(?=" + expression_of(cut) + ")";
  all += any_of;
  return set.is_negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
}

void join(CharacterSet& set, CharacterSet&& member) {
  if (member.is_flat() && !member.is_negated) {
    set.items += member.items;
  } else {
    set.nested.push_back(std::move(member));
  }
}

std::string escaped(uint32_t code) {
  if (code < 0x80 && std::isalnum(static_cast<int>(code))) return std::string(1, static_cast<char>(code));
  return fmt::format("\\x{{{:X}}}", code);
}

std::string property_items(std::string_view name) {
  static constexpr auto table = std::to_array<std::pair<std::string_view, std::string_view>>({
      {"alnum", R"(\p{Alphabetic}\p{Nd})"},
      {"alpha", R"(\p{Alphabetic})"},
      {"alphabetic", R"(\p{Alphabetic})"},
      {"any", R"(\x{0}-\x{10FFFF})"},
      {"ascii", R"(\x{0}-\x{7F})"},
      {"blank", R"(\p{Zs}\t)"},
      {"cntrl", R"(\p{Cc})"},
      {"digit", R"(\p{Nd})"},
      {"lower", R"(\p{Lowercase})"},
      {"punct", R"(\p{P})"},
      {"space", space_items},
      {"upper", R"(\p{Uppercase})"},
      {"whitespace", space_items},
      {"word", word_items},
      {"xdigit", hex_items},
      {"letter", R"(\p{L})"},
      {"uppercaseletter", R"(\p{Lu})"},
      {"lowercaseletter", R"(\p{Ll})"},
      {"titlecaseletter", R"(\p{Lt})"},
      {"modifierletter", R"(\p{Lm})"},
      {"otherletter", R"(\p{Lo})"},
      {"mark", R"(\p{M})"},
      {"nonspacingmark", R"(\p{Mn})"},
      {"spacingmark", R"(\p{Mc})"},
      {"enclosingmark", R"(\p{Me})"},
      {"number", R"(\p{N})"},
      {"decimalnumber", R"(\p{Nd})"},
      {"letternumber", R"(\p{Nl})"},
      {"othernumber", R"(\p{No})"},
      {"punctuation", R"(\p{P})"},
      {"symbol", R"(\p{S})"},
      {"separator", R"(\p{Z})"},
      {"other", R"(\p{C})"},
      {"uppercase", R"(\p{Uppercase})"},
      {"lowercase", R"(\p{Lowercase})"},
      {"emoji", R"(\p{Emoji})"},
      {"extendedpictographic", R"(\p{Extended_Pictographic})"},
      {"ideographic", R"(\p{Ideographic})"},
  });
  const std::string key = property_key(name);
  for (const auto& [known, items] : table) {
    if (key == known) return std::string(items);
  }
  if (name.size() <= 2) return fmt::format("\\p{{{}}}", name);
  return fmt::format("\\p{{sc:{}}}", name);  // a script; without "sc:" PCRE2 adds the script extensions
}

}  // namespace ptrain
