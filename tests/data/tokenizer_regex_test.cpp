// Patterns in Oniguruma's syntax: what they match, and what is refused. Every row of the table of matches was
// compared with the reference library.
#include "src/data/tokenizer/regex.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

using Matches = std::vector<std::string>;

Matches matches_of(std::string_view pattern, std::string_view text) {
  const Regex regex(pattern, "test");
  RegexScratch scratch;
  Matches found;
  for_each_match(regex, text, scratch,
                 [&](Match m) { found.emplace_back(text.substr(m.begin, m.end - m.begin)); });
  return found;
}

TEST(Regex, ReadsOnigurumasSyntax) {
  struct Case {
    const char* pattern;
    const char* text;
    Matches expected;
  };
  const std::vector<Case> cases = {
      {R"([^(\s|[.,!?])]+)", "a(b|c) d.e,f!", {"a", "b", "c", "d", "e", "f"}},  // a class in a class
      {R"([^a[^bc]]+)", "abcab", {"bc", "b"}},                                  // not (a or not (b or c))
      {R"([\p{L}&&[^a-e]]+)", "abcxyz1dfg", {"xyz", "fg"}},                     // intersection
      {R"([a-z&&[^aeiou]&&[^x-z]]+)", "banxd", {"b", "n", "d"}},                // two of them
      {R"([\s\S])", "a\n", {"a", "\n"}},                                        // everything
      {R"([^\S\n]+)", "a \t\nb ", {" \t", " "}},                                // a negated set in a class
      {R"(\h+)", "xyz12afG", {"12af"}},                       // hexadecimal, not white space
      {R"(\v)", "\v\n\f", {"\v"}},                            // one character, not a class
      {R"(\s)", "\u180e\u0085\u2003", {"\u0085", "\u2003"}},  // White_Space
      {R"(\w+)",
       "e\u0301t\u00e9_1\u203f\u00bd\u2153",
       {"e\u0301t\u00e9_1\u203f\u00bd"}},  // marks and connectors too
      {R"([\w]+)", "a\u00bdz", {"a", "z"}},
      {R"([^\w\s]+)", ">\u00bdz", {">\u00bd"}},
      {R"(\W+)", "a\u00bd>", {">"}},
      {R"(\p{Word}+)", "a\u00bd>", {"a\u00bd"}},
      {R"(\p{Punct}+)", "$.", {"."}},
      {R"(\d+)", "1\u0663\u00bd", {"1\u0663"}},                                 // Nd only
      {R"(\p{Han}+)", "\u4e16\u754c\u3042", {"\u4e16\u754c"}},                  // Script, not its extensions
      {R"(\p{^L}+|\P{^L}+)", "ab12", {"ab", "12"}},                             // negations
      {R"(\p{Uppercase_Letter})", "aB", {"B"}},                                 // long names
      {R"([[:punct:]]+)", "a$.b", {"$."}},                                      // POSIX brackets
      {R"(a{2}+)", "aaaaa", {"aaaa"}},                                          // a repeat, not possessive
      {R"((?:ab){1,2}+)", "ababab", {"ababab"}},                                //
      {R"(a{,2})", "aaa", {"aa", "a"}},                                         // from zero
      {R"(a{x})", "a{x}", {"a{x}"}},                                            // no interval at all
      {R"(a++b)", "aab", {"aab"}},                                              // possessive
      {R"((?i:'s|'t)|\w)", "'Sx'\u017f", {"'S", "x", "'\u017f"}},               // case folding
      {R"((?m:.))", "\n", {"\n"}},                                              // Ruby's m: dot is all
      {R"(^.|.$)", "ab\ncd", {"a", "b", "c", "d"}},                             // lines
      {R"(\bx)", "x ax e\u0301x", {"x"}},                                       // marks are word characters
      {R"(\u00e9|\x{4e16}|\x41)", "\u00e9\u4e16A", {"\u00e9", "\u4e16", "A"}},  // numbers
      {R"((?<=a)b(?!c))", "abc ab bb", {"b"}},                                  // looking round
      {R"([]a]+)", "]a]", {"]a]"}},                                             // ] first is itself
      {R"([a\-z]+|-)", "-b", {"-"}},                                            // an escaped -
  };
  for (const Case& c : cases) {
    EXPECT_EQ(matches_of(c.pattern, c.text), c.expected) << c.pattern;
  }
}

TEST(Regex, TakesEmptyMatchesAsTheReferenceDoes) {
  EXPECT_EQ(matches_of("a*", "baac"), (Matches{"", "aa", ""}));
  EXPECT_EQ(matches_of("a*", ""), (Matches{""}));
  EXPECT_EQ(matches_of("x*", "\u4e16\u754c"), (Matches{"", "", ""}));
}

TEST(Regex, RefusesWhatItDoesNotUnderstand) {
  for (const char* pattern :
       {"(",         ")",     "[a",      "[b-a]",           "(?<name>a)",    "(?x)a",     "a(?i)b",
        "(*COMMIT)", R"(\K)", R"(\p{L)", R"(\p{Nonsense})", R"(\x{110000})", R"(\ud800)", "a{2}?",
        "(?{code})", "a**b(", R"(\C)",   "[[:nope:]]",      R"(\)",          R"([\)",     "[a&&"}) {
    try {
      const Regex regex(pattern, "here");
      ADD_FAILURE() << pattern << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input) << pattern;
      EXPECT_NE(std::string(error.what()).find("here: the pattern"), std::string::npos) << error.what();
    }
  }
}

TEST(Regex, ReportsAPatternThatIsTooCostly) {
  const Regex regex(R"((?:a|a|a)*[bc])", "here");
  RegexScratch scratch;
  try {
    regex.find(std::string(40, 'a'), 0, scratch);
    ADD_FAILURE() << "no limit was met";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find("limit"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(regex.find("aab", 0, scratch).has_value());  // the scratch is as good as before
}

}  // namespace
}  // namespace ptrain
