// The hand-written splitters against the same patterns in PCRE2, on texts made to be awkward.
#include "src/data/tokenizer/splitter.h"

#include <gtest/gtest.h>

#include <random>

#include "src/data/tokenizer/pre_tokenizer.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

using Pieces = std::vector<std::string>;

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}

Json split_by(std::string_view pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json sequence(Json first, Json second) {
  return {{"type", "Sequence"}, {"pretokenizers", {std::move(first), std::move(second)}}};
}

struct Kind {
  const char* name;
  Json settings;
};

std::vector<Kind> kinds() {
  return {{"gpt2", byte_level(true)},
          {"gpt2_spelled_out", sequence(split_by(gpt2_pattern), byte_level(false))},
          {"smollm", sequence({{"type", "Digits"}, {"individual_digits", true}}, byte_level(true))},
          {"llama3", sequence(split_by(llama3_pattern), byte_level(false))},
          {"qwen2", sequence(split_by(qwen2_pattern), byte_level(false))}};
}

Pieces pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text, PreTokenizerScratch& scratch) {
  Pieces pieces;
  pre_tokenizer.split(text, true, scratch, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

/// A few characters from a few alphabets, so that every alternative of the patterns meets every other.
std::string random_text(std::mt19937_64& random) {
  static const std::vector<std::vector<std::string>> alphabets = {
      {" ", "  ", "a", "Z", "1", "9", "'", "\n", "\r", "\t", ".", "!", "s", "re", "LL", "'d", "'T"},
      {" ", "\u00a0", "\u0085", "\u2028", "\u3000", "\u180e", "\u200b", "\n", "\r\n", "x", "-", "\v", "\f",
       "\x1c"},
      {"\u00e9", "e\u0301", "\u4e16", "\u0967", "\u00bd", "\u2167", "\U0001F600", "\u200d", "\u0915\u094d",
       " ", "'"},
      {"'", "s", "S", "\u017f", "m", "K", "\u212a", "v", "e", "E", "l", "L", "t", "d", " ", "1"}};
  const auto& alphabet = alphabets[random() % alphabets.size()];
  std::string text;
  for (size_t n = random() % 40; n > 0; --n) {
    if (random() % 20 == 0) {
      uint32_t code = static_cast<uint32_t>(random() % 0x33000);
      if (code >= 0xD800 && code < 0xE000) code = 0x10FFFF;
      append_utf8(text, code);
    } else {
      text += alphabet[random() % alphabet.size()];
    }
  }
  return text;
}

TEST(Splitter, CutsAsItsPatternDoesOnRandomTexts) {
  PreTokenizerScratch scratch;
  for (const Kind& kind : kinds()) {
    const PreTokenizer by_hand(kind.settings, kind.name, true, Shortcuts::use);
    const PreTokenizer by_pattern(kind.settings, kind.name, true, Shortcuts::avoid);
    std::mt19937_64 random(17);
    for (int i = 0; i < 20000; ++i) {
      const std::string text = random_text(random);
      ASSERT_EQ(pieces_of(by_hand, text, scratch), pieces_of(by_pattern, text, scratch))
          << kind.name << ": " << text;
    }
  }
}

TEST(Splitter, CutsAsItsPatternDoesAroundEveryCharacter) {
  PreTokenizerScratch scratch;
  for (const Kind& kind : kinds()) {
    const PreTokenizer by_hand(kind.settings, kind.name, true, Shortcuts::use);
    const PreTokenizer by_pattern(kind.settings, kind.name, true, Shortcuts::avoid);
    for (uint32_t first = 0; first < 0x40000; first += 61) {
      std::string text;
      for (uint32_t code = first; code < first + 61; ++code) {
        if (code >= 0xD800 && code < 0xE000) continue;
        append_utf8(text, code);
        text += code % 3 == 0 ? " a" : code % 3 == 1 ? "1" : "";
      }
      ASSERT_EQ(pieces_of(by_hand, text, scratch), pieces_of(by_pattern, text, scratch))
          << kind.name << ": " << first;
    }
  }
}

TEST(Splitter, LeavesTheLastBlankToTheNextWord) {
  const CharacterClasses classes;
  const Gpt2Splitter gpt2(classes);
  EXPECT_EQ(gpt2.next("  x", 0), 1u);
  EXPECT_EQ(gpt2.next("  x", 1), 3u);
  EXPECT_EQ(gpt2.next("  ", 0), 2u);
  EXPECT_EQ(gpt2.next("\n\nx", 0), 1u);
  EXPECT_EQ(Llama3Splitter(classes, 3).next("\n\nx", 0), 2u);
  EXPECT_EQ(Llama3Splitter(classes, 3).next("12345", 0), 3u);
  EXPECT_EQ(Llama3Splitter(classes, 1).next("12345", 0), 1u);
}

TEST(Splitter, SeesTheEndOfThePieceAtEveryDigit) {
  const PreTokenizer smollm(kinds()[2].settings, "smollm", true);
  PreTokenizerScratch scratch;
  EXPECT_EQ(pieces_of(smollm, "x  5  \u00bd y", scratch), (Pieces{"x", "  ", "5", "  ", "\u00bd", " y"}));
}

}  // namespace
}  // namespace ptrain
