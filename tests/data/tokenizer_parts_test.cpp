// Normalizers, pre-tokenizers, decoders and post-processors one by one, by their definitions. The comparison
// with the reference library is tokenizer_golden_test's.
#include <gtest/gtest.h>

#include <thread>

#include "src/data/tokenizer/decoder.h"
#include "src/data/tokenizer/normalizer.h"
#include "src/data/tokenizer/post_processor.h"
#include "src/data/tokenizer/pre_tokenizer.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

using Ids = std::vector<int32_t>;
using Pieces = std::vector<std::string>;

std::string normalized(const Json& settings, std::string_view text) {
  NormalizerScratch scratch;
  return std::string(Normalizer(settings, "test").apply(text, scratch));
}

Json replace(const Json& pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", pattern}, {"content", content}};
}

TEST(Normalizer, DoesWhatEachKindSays) {
  const auto type = [](const char* name) { return Json{{"type", name}}; };
  struct Case {
    Json settings;
    const char* text;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {Json(), " A ", " A "},
      {type("NFC"), "cafe\u0301 \uac00", "caf\u00e9 \uac00"},
      {type("NFD"), "caf\u00e9 \uac00", "cafe\u0301 \u1100\u1161"},
      {type("NFKC"), "\ufb01 \uff21 \u00bd", "fi A 1\u20442"},
      {type("NFKD"), "\u00c5 \ufb01", "A\u030a fi"},
      {type("Lowercase"), "\u00c9A\u0130\u03a3", "\u00e9ai\u0307\u03c3"},
      {type("StripAccents"), "e\u0301\u00e9", "e\u00e9"},
      {type("Nmt"), "a\tb\u200bc\x01", "a b c"},
      {type("ByteLevel"), "a \u00e9", "a\u0120\u00c3\u00a9"},
      {{{"type", "Prepend"}, {"prepend", "\u2581"}},
       "a",
       "\u2581"
       "a"},
      {{{"type", "Prepend"}, {"prepend", "\u2581"}}, "", ""},
      {{{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " \u3000 a ", "a "},
      {{{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a\n", " a"},
      {{{"type", "Strip"}}, " \n", ""},
      {replace({{"String", "a.b"}}, "-"), "a.b axb", "- axb"},
      {replace({{"Regex", "a.b"}}, "-"), "a.b axb", "- -"},
      {{{"type", "Sequence"}, {"normalizers", {type("NFD"), type("StripAccents"), type("Lowercase")}}},
       "\u00c9A",
       "ea"},
  };
  for (const Case& c : cases) EXPECT_EQ(normalized(c.settings, c.text), c.expected) << c.settings;
}

TEST(Normalizer, CostsNothingWhereTextIsNormalAlready) {
  NormalizerScratch scratch;
  const Normalizer nfc(Json{{"type", "NFC"}}, "test");
  for (std::string_view text : {"plain ASCII", "caf\u00e9", "\u4e16\u754c", ""}) {
    EXPECT_EQ(nfc.apply(text, scratch).data(), text.data()) << "the same bytes, not a copy";
  }
}

Pieces pieces_of(const Json& settings, std::string_view text, bool is_start = true) {
  const PreTokenizer pre_tokenizer(settings, "test", false);
  PreTokenizerScratch scratch;
  Pieces pieces;
  pre_tokenizer.split(text, is_start, scratch, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

TEST(PreTokenizer, HandlesMatchesByEveryBehavior) {
  const auto split = [](const char* behavior, bool is_inverted = false) {
    return pieces_of(
        {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", is_inverted}},
        "The-final--countdown");
  };
  EXPECT_EQ(split("Isolated"), (Pieces{"The", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split("Removed"), (Pieces{"The", "final", "countdown"}));
  EXPECT_EQ(split("MergedWithPrevious"), (Pieces{"The-", "final-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithNext"), (Pieces{"The", "-final", "-", "-countdown"}));
  EXPECT_EQ(split("Contiguous"), (Pieces{"The", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split("Removed", true), (Pieces{"-", "-", "-"}));
}

Json metaspace(const char* scheme, bool splits) {
  return {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", scheme}, {"split", splits}};
}

TEST(PreTokenizer, CutsAsEachKindSays) {
  const auto type = [](const char* name) { return Json{{"type", name}}; };
  EXPECT_EQ(pieces_of(Json(), "a b"), (Pieces{"a b"}));
  EXPECT_EQ(pieces_of(type("Whitespace"), "Hi there, e\u0301!! "),
            (Pieces{"Hi", "there", ",", "e\u0301", "!!"}));
  EXPECT_EQ(pieces_of(type("WhitespaceSplit"), " Hi \u3000there, "), (Pieces{"Hi", "there,"}));
  EXPECT_EQ(pieces_of(type("Punctuation"), "a+b\u3002\u20ac."),
            (Pieces{"a", "+", "b", "\u3002", "\u20ac", "."}));
  EXPECT_EQ(pieces_of({{"type", "Digits"}, {"individual_digits", true}}, "a12\u00bd"),
            (Pieces{"a", "1", "2", "\u00bd"}));
  EXPECT_EQ(pieces_of({{"type", "Digits"}, {"individual_digits", false}}, "12a3"), (Pieces{"12", "a", "3"}));
  EXPECT_EQ(pieces_of({{"type", "CharDelimiterSplit"}, {"delimiter", "x"}}, "axbx"), (Pieces{"a", "b"}));
  EXPECT_EQ(pieces_of({{"type", "ByteLevel"}, {"add_prefix_space", true}}, "a\u00e9 b"),
            (Pieces{"\u0120"
                    "a\u00c3\u00a9",
                    "\u0120"
                    "b"}));
  EXPECT_EQ(pieces_of(metaspace("always", true), "a b  c"), (Pieces{"_a", "_b", "_", "_c"}));
  EXPECT_EQ(pieces_of(metaspace("never", true), "a b"), (Pieces{"a", "_b"}));
  EXPECT_EQ(pieces_of(metaspace("always", false), "a b"), (Pieces{"_a_b"}));
  EXPECT_EQ(pieces_of(metaspace("first", true), "a b", true), (Pieces{"_a", "_b"}));
  EXPECT_EQ(pieces_of(metaspace("first", true), "a b", false), (Pieces{"a", "_b"}));
  const Json both = {{"type", "Sequence"},
                     {"pretokenizers", {type("WhitespaceSplit"), metaspace("first", true)}}};
  EXPECT_EQ(pieces_of(both, "a b"), (Pieces{"_a", "b"}));
  EXPECT_EQ(pieces_of(both, " a b"), (Pieces{"a", "b"})) << "what was cut off the front was the start";
}

std::string decoded(const Json& settings, Pieces tokens) {
  RegexScratch scratch;
  return TokenDecoder(settings, "test").decode(std::move(tokens), scratch);
}

TEST(Decoder, DoesWhatEachKindSays) {
  const auto type = [](const char* name) { return Json{{"type", name}}; };
  EXPECT_EQ(decoded(Json(), {"a", "b"}), "a b");
  EXPECT_EQ(decoded(type("ByteLevel"), {"\u00c3", "\u00a9\u0120", "norm tok", "\u00f0"}),
            "\u00e9 norm tok\ufffd");
  EXPECT_EQ(decoded(type("ByteFallback"), {"<0xE4>", "<0xB8>", "<0x96>", "a", "<0xE4>", "<0x41>", "<0xZZ>"}),
            "\u4e16"
            "a\ufffd\ufffd<0xZZ>");
  EXPECT_EQ(decoded(type("Fuse"), {"a", "b"}), "ab");
  EXPECT_EQ(decoded({{"type", "Strip"}, {"content", "_"}, {"start", 1}, {"stop", 2}}, {"__a__", "_", ""}),
            "_a");
  EXPECT_EQ(decoded(replace({{"String", "_"}}, " "), {"_a", "_b"}), " a b");
  EXPECT_EQ(decoded(metaspace("always", true), {"_a", "_b_"}), "a b ");
  EXPECT_EQ(decoded(metaspace("never", true), {"_a", "_b"}), " a b");
  EXPECT_EQ(decoded({{"type", "BPEDecoder"}, {"suffix", "</w>"}}, {"a</w>", "b", "c</w>"}), "a bc");
  EXPECT_EQ(
      decoded({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}, {"do", "##n", "n't", "go", "."}),
      "donn't go.");
}

Json around(Json single) {
  const Json tokens = {{"<s>", {{"id", "<s>"}, {"ids", {7}}, {"tokens", {"<s>"}}}},
                       {"</s>", {{"id", "</s>"}, {"ids", {8, 9}}, {"tokens", {"</s>", "x"}}}}};
  return {{"type", "TemplateProcessing"}, {"single", std::move(single)}, {"special_tokens", tokens}};
}

TEST(PostProcessor, PutsIdsBeforeAndAfter) {
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const auto special = [](const char* name) {
    return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const PostProcessor both = read_post_processor(around({special("<s>"), text, special("</s>")}), "test", 10);
  EXPECT_EQ(both.before, Ids({7}));
  EXPECT_EQ(both.after, Ids({8, 9}));
  const Json in_sequence = {{"type", "Sequence"},
                            {"processors", {{{"type", "ByteLevel"}}, around({special("<s>"), text})}}};
  EXPECT_EQ(read_post_processor(in_sequence, "test", 10).before, Ids({7}));
  const Json bert = {{"type", "BertProcessing"}, {"sep", {"[SEP]", 4}}, {"cls", {"[CLS]", 3}}};
  EXPECT_EQ(read_post_processor(bert, "test", 10).before, Ids({3}));
  EXPECT_EQ(read_post_processor(bert, "test", 10).after, Ids({4}));
  EXPECT_TRUE(read_post_processor(Json(), "test", 10).before.empty());
}

TEST(Tokenizer, EncodesTheSameFromManyThreads) {
  const auto tokenizer = Tokenizer::load(fixture("tokenizers/llama3_style"));
  const std::vector<std::string> texts = {"Hello, world! 12345", "we'll don't", "\u4e16\u754c caf\u00e9",
                                          "a  b\n\n c"};
  std::vector<Ids> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer->encode(text, Special::add));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 500; ++i) {
        const size_t k = (i + t) % texts.size();
        if (tokenizer->encode(texts[k], Special::add) != expected[k]) ++wrong[t];
        if (tokenizer->decode(expected[k], Skip::special) != texts[k]) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, ReadsBrokenUtf8AsReplacementCharacters) {
  const auto tokenizer = Tokenizer::load(fixture("tokenizers/gpt2_bytelevel"));
  const auto ids = [&](std::string_view text) { return tokenizer->encode(text, Special::none); };
  EXPECT_EQ(ids("a\xff\x80z"), ids("a\ufffd\ufffdz"));
  EXPECT_EQ(ids("\xe4\xb8"), ids("\ufffd")) << "one for the beginning of a character";
  EXPECT_EQ(ids("\xed\xa0\x80"), ids("\ufffd\ufffd\ufffd")) << "surrogates are not UTF-8";
  EXPECT_EQ(ids("\xc0\xaf"), ids("\ufffd\ufffd")) << "nor is the long way to write a character";
}

TEST(Tokenizer, LeavesUnknownIdsOutOfTheText) {
  const auto tokenizer = Tokenizer::load(fixture("tokenizers/llama2_style"));
  Ids ids = tokenizer->encode("Hello", Special::none);
  ids.insert(ids.begin() + 1, {-1, 1'000'000, tokenizer->size()});
  EXPECT_EQ(tokenizer->decode(ids, Skip::none), "Hello");
}

TEST(StreamDecoder, HoldsBackBrokenBytesButNotForEver) {
  const auto tokenizer = Tokenizer::load(fixture("tokenizers/llama2_style"));
  const int32_t lead = *tokenizer->id_of("<0xE4>");
  StreamDecoder stream(*tokenizer, Skip::special);
  std::string text;
  for (int i = 0; i < 100; ++i) text += stream.push(lead);
  EXPECT_FALSE(text.empty());
  text += stream.finish();
  EXPECT_EQ(text.size(), 100 * 3u) << "U+FFFD for each";
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace ptrain
