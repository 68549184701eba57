// Tokenizer files: what is refused and how it is said, what is added, and that no bytes of a stranger do
// harm.
#include "src/data/tokenizer/file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "src/data/tokenizer/sentencepiece.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

using Ids = std::vector<int32_t>;

constexpr const char* small_file = R"({
  "version": "1.0",
  "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}
})";

std::string with(std::string_view from, std::string_view to) {
  std::string text = small_file;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

/// The message with which `make` fails, after checking its exit code.
template <class Make>
std::string refusal(Make&& make) {
  try {
    make();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input) << error.what();
    return error.what();
  }
  return "accepted";
}

TEST(TokenizerFile, NamesWhatIsWrongWithAJsonFile) {
  EXPECT_EQ(Tokenizer::from_json(small_file, "small")->encode("abc", Special::none), Ids({2, 3}));
  struct Case {
    std::string text;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {"", "not valid JSON"},
      {"[]", "expected an object"},
      {"{}", "\"model\" is missing"},
      {std::string(small_file) + "x", "f:9: not valid JSON"},
      {std::string(100, '['), "nested deeper"},
      {with("\"BPE\"", "\"Unigram\""), "the model \"Unigram\" is not supported"},
      {with("\"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"c\": 3}",
            "\"Unigram\", \"vocab\": [[\"a\", -1.5], [\"b\", 2]]"),
       "the model \"Unigram\" is not supported"},
      {with("\"BPE\"", "\"WordPiece\""), "the model \"WordPiece\""},
      {with("\"BPE\"", "7"), "\"type\" is an integer"},
      {with("\"c\": 3", "\"c\": 2"), "id 2 belongs to \"ab\" and to \"c\""},
      {with("\"c\": 3", "\"a\": 3"), "token \"a\" has the ids 0 and 3"},
      {with("\"c\": 3", "\"c\": -3"), "token \"c\" has the negative id -3"},
      {with("\"c\": 3", "\"c\": 4000000000"), "token \"c\" has id 4000000000"},
      {with("\"c\": 3", "\"c\": 99999999999999999999999"), "token \"c\" has a number with a fraction"},
      {with("\"c\": 3", "\"c\": 3.5"), "token \"c\" has a number with a fraction for its id"},
      {with("\"c\": 3", "\"c\": \"3\""), "token \"c\" has a string"},
      {with("\"c\": 3", "\"c\": [3]"), "token \"c\" has an array"},
      {with("\"a b\"", "\"a z\""), "entry 0 (\"a\" + \"z\") needs the token \"z\""},
      {with("\"a b\"", "\"b a\""), "needs the token \"ba\""},
      {with("\"a b\"", "\"a b c\""), "entry 0 is \"a b c\""},
      {with("\"a b\"", "\"ab\""), "entry 0 is \"ab\""},
      {with("\"a b\"", "[\"a\"]"), "entry 0 has 1 tokens"},
      {with("\"a b\"", "[\"a\", 1]"), "entry 0 is a number"},
      {with("\"a b\"", "{}"), "entry 0 is an object"},
      {with(", \"merges\": [\"a b\"]", ""), "\"merges\" is missing"},
      {with("\"version\"", "\"model\""), "the name \"model\" appears twice"},
      {with("\"id\": 4", "\"id\": 3"), "\"<s>\" has id 3, which belongs to \"c\""},
      {with("\"content\": \"<s>\"", "\"content\": \"c\""), "\"c\" has id 4 here and id 3"},
      {with("\"id\": 4", "\"id\": 1000000000"), "added_tokens[0]: \"id\" is 1000000000"},
      {with("\"id\": 4, ", ""), "added_tokens[0]: \"id\" is missing"},
      {with("[{\"id\": 4", "[{\"id\": 4, \"content\": \"<s>\"}, {\"id\": 5"), "is there already"},
      {with("\"normalizer\": null",
            "\"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"x\"}"),
       "the normalizer \"Precompiled\" is not supported"},
      {with("\"normalizer\": null", "\"normalizer\": []"), "normalizer: is an array"},
      {with("\"use_regex\": true", "\"use_regex\": 1"), "\"use_regex\" is an integer"},
      {with("\"ByteLevel\", \"add", "\"UnicodeScripts\", \"add"), "the pre-tokenizer \"UnicodeScripts\""},
      {with("{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}",
            R"({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"})"),
       "pre_tokenizer.pattern: the pattern \"(a\""},
      {with("{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}",
            R"({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"})"),
       "the pattern is empty"},
      {with("{\"type\": \"ByteLevel\"}", "{\"type\": \"CTC\"}"), "the decoder \"CTC\""},
      {with("\"post_processor\": null",
            R"("post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}},
               {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [5]}}})"),
       "id 5 is not among the 5 ids"},
      {with("\"post_processor\": null", R"("post_processor": {"type": "TemplateProcessing", "single": []})"),
       "leaves the text itself out"},
      {with("\"type\": \"BPE\"", "\"type\": \"BPE\", \"dropout\": 0.1"), "\"dropout\" is 0.1"},
      {with("\"type\": \"BPE\"", "\"type\": \"BPE\", \"unk_token\": \"<unk>\""),
       "\"unk_token\" is \"<unk>\""},
  };
  for (const Case& c : cases) {
    const std::string message = refusal([&] { Tokenizer::from_json(c.text, "f"); });
    EXPECT_NE(message.find(c.expected), std::string::npos) << message << "\nexpected: " << c.expected;
    EXPECT_TRUE(message.starts_with("f")) << message;
  }
}

TEST(TokenizerFile, SaysWhichFilesAreMissing) {
  const TemporaryDirectory directory;
  const std::string message = refusal([&] { Tokenizer::load(directory.path()); });
  EXPECT_NE(message.find("neither tokenizer.json nor tokenizer.model"), std::string::npos) << message;
}

TEST(TokenizerFile, AddsSpecialTokensAfterTheLargestId) {
  const TemporaryDirectory directory;
  write_text(directory.path() / "tokenizer.json", small_file);
  const std::vector<std::string> tokens = {"[SEP]", "c", "<s>", "[STOP]", "[SEP]"};
  const auto plain = Tokenizer::load(directory.path());
  const auto tokenizer = Tokenizer::load(directory.path(), tokens);
  EXPECT_EQ(plain->size(), 5);
  EXPECT_EQ(tokenizer->size(), 7);
  EXPECT_EQ(tokenizer->encode("ab[SEP]c<s>[STOP]", Special::none), Ids({2, 5, 3, 4, 6}));
  EXPECT_EQ(tokenizer->decode(Ids({2, 5, 3, 4, 6}), Skip::special), "ab");
  EXPECT_NE(tokenizer->digest(), plain->digest());
  const std::vector<std::string> empty = {""};
  EXPECT_NE(refusal([&] { Tokenizer::load(directory.path(), empty); }).find("empty"), std::string::npos);
}

TEST(TokenizerFile, WritesAJsonThatReadsBackTheSame) {
  for (const char* kind : {"smollm_style", "llama3_style", "llama2_style"}) {
    const auto path = fixture("tokenizers") / kind;
    const std::vector<std::string> tokens = {"<new>"};
    const auto before = Tokenizer::load(path, tokens);
    const auto after = Tokenizer::from_json(tokenizer_json(path, tokens), "written");
    EXPECT_EQ(after->size(), before->size());
    for (const char* text :
         {"Hello, world! 123", "<new>we'll\n\n  go", "\u4e16\u754c \"\\ caf\u00e9", "<s>[SEP]"}) {
      EXPECT_EQ(after->encode(text, Special::add), before->encode(text, Special::add))
          << kind << ": " << text;
    }
  }
}

/// A field of a protocol buffer's message: a block, or a small number.
std::string block(int number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  for (size_t n = bytes.size();; n >>= 7) {
    out += static_cast<char>((n & 0x7F) | (n > 0x7F ? 0x80 : 0));
    if (n <= 0x7F) break;
  }
  return out + bytes;
}
std::string small(int number, int value) {
  return {static_cast<char>((number << 3) & 0x7F), static_cast<char>(value)};
}
std::string piece(const std::string& text, int type = 1) {
  return block(1, block(1, text) + small(3, type));
}

const std::string bpe_trainer = block(2, small(3, 2));
const std::string plain_text = block(3, small(4, 0));

TEST(SentencePieceFile, NamesWhatIsWrongWithAModel) {
  const std::string pieces = piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3) + piece("a");
  const auto parse = [](const std::string& bytes) { return parse_sentencepiece(bytes, "m", {}); };
  EXPECT_EQ(parse(pieces + bpe_trainer + plain_text).vocab.size(), 4u);
  struct Case {
    std::string bytes;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {"", "no pieces"},
      {"hello, this is no model", "m: "},
      {pieces + plain_text, "is a Unigram model"},
      {pieces + block(2, small(3, 4)) + plain_text, "is a character model"},
      {pieces + bpe_trainer, "remove_extra_whitespaces"},
      {pieces + bpe_trainer + block(3, small(4, 0) + block(2, "map")), "precompiled_charsmap"},
      {pieces + bpe_trainer + block(3, small(4, 0) + small(5, 0)), "escape_whitespaces"},
      {pieces + piece("b", 5) + bpe_trainer + plain_text, "piece 4: \"b\" is of type 5"},
      {pieces + piece("b", 9) + bpe_trainer + plain_text, "is of type 9"},
      {pieces + piece("\xff") + bpe_trainer + plain_text, "piece 4: a piece of 1 bytes"},
      {pieces + piece("") + bpe_trainer + plain_text, "a piece of 0 bytes"},
      {pieces + piece(std::string(600, 'a')) + bpe_trainer + plain_text, "a piece of 600 bytes"},
      {pieces + "\x0a\x7f" + "abc", "127 bytes announced, 3 left"},
      {pieces + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes announced"},
      {pieces + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more than ten bytes"},
      {pieces + "\x0b", "wire type 3"},
      {pieces + std::string("\x02\x00", 2), "no field number"},
      {piece("a") + bpe_trainer + plain_text, "bos_id is 1, but the model has 1 pieces"},
  };
  for (const Case& c : cases) {
    const std::string message = refusal([&] { parse(c.bytes); });
    EXPECT_NE(message.find(c.expected), std::string::npos) << message << "\nexpected: " << c.expected;
  }
}

/// Flips, drops and doubles bytes. Whatever comes out is refused as input or works.
template <class Use>
void survive_damage(const std::string& whole, int rounds, Use&& use) {
  std::mt19937_64 random(5);
  int refused = 0;
  for (int i = 0; i < rounds; ++i) {
    std::string bytes = whole;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.erase(at, 1 + random() % 8);
          break;
        case 2:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 20));
          break;
        default:
          bytes[at] = "{}[]\",:0-9eE\\x"[random() % 14];
          break;
      }
      if (bytes.empty()) bytes = " ";
    }
    try {
      use(bytes);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, rounds / 10);
}

TEST(TokenizerFile, SurvivesDamage) {
  std::string whole = to_json_text(parse_tokenizer_json(small_file, "small"));
  const Json settings = read_json(fixture("tokenizers/bloom_style/tokenizer.json"));
  whole.replace(whole.find("\"pre_tokenizer\": {"), 17,
                "\"pre_tokenizer\": " + settings["pre_tokenizer"].dump() + ", \"ignored\": {");
  survive_damage(whole, 3000, [](const std::string& bytes) {
    const auto tokenizer = Tokenizer::from_json(bytes, "damaged");
    tokenizer->decode(tokenizer->encode("ab c, d<s>", Special::add), Skip::none);
  });
}

TEST(SentencePieceFile, SurvivesDamage) {
  const std::string whole = read_text(fixture("tokenizers/llama2_style/tokenizer.model"), 1 << 20);
  survive_damage(whole, 300, [](const std::string& bytes) { parse_sentencepiece(bytes, "damaged", {}); });
}

}  // namespace
}  // namespace ptrain
