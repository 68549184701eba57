// Every kind of tokenizer against the ids and texts of the reference libraries, line by line.
#include <gtest/gtest.h>

#include <fstream>

#include "src/data/tokenizer/tokenizer.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

using Ids = std::vector<int32_t>;

std::vector<Json> read_cases(const std::string& kind) {
  std::vector<Json> cases;
  std::ifstream file(fixture("tokenizers/" + kind + "/cases.jsonl"));
  for (std::string line; std::getline(file, line);) cases.push_back(parse_json(line, kind));
  return cases;
}

class GoldenTokenizer : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::load(fixture(std::string("tokenizers/") + GetParam()));
  std::vector<Json> cases_ = read_cases(GetParam());
};

TEST_P(GoldenTokenizer, EncodesWithTheReferencesIds) {
  ASSERT_GT(cases_.size(), 200u);
  for (const Json& c : cases_) {
    const std::string text = c["text"];
    EXPECT_EQ(tokenizer_->encode(text, Special::add), c["ids"].get<Ids>()) << text;
    EXPECT_EQ(tokenizer_->encode(text, Special::none), c["ids_no_special"].get<Ids>()) << text;
  }
}

TEST_P(GoldenTokenizer, DecodesToTheReferencesText) {
  for (const Json& c : cases_) {
    const Ids ids = c["ids"];
    EXPECT_EQ(tokenizer_->decode(ids, Skip::none), c["decoded"].get<std::string>()) << c["text"];
    EXPECT_EQ(tokenizer_->decode(ids, Skip::special), c["decoded_skip_special"].get<std::string>())
        << c["text"];
  }
}

TEST_P(GoldenTokenizer, StreamsTheSameTextInWholeCharacters) {
  for (Skip skip : {Skip::none, Skip::special}) {
    for (const Json& c : cases_) {
      StreamDecoder stream(*tokenizer_, skip);
      std::string text;
      for (int32_t id : c["ids"].get<Ids>()) {
        text += stream.push(id);
        EXPECT_NO_THROW(Json(text).dump()) << "not UTF-8 in the middle of " << c["text"];
      }
      text += stream.finish();
      EXPECT_EQ(text, c[skip == Skip::none ? "decoded" : "decoded_skip_special"].get<std::string>());
    }
  }
}

TEST_P(GoldenTokenizer, NamesEveryIdAndFindsItAgain) {
  ASSERT_GT(tokenizer_->size(), 1000);
  for (int32_t id = 0; id < tokenizer_->size(); ++id) {
    EXPECT_EQ(tokenizer_->id_of(tokenizer_->token_of(id)), id);
  }
  EXPECT_EQ(tokenizer_->id_of("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer_->token_of(tokenizer_->size()), "");
  EXPECT_EQ(tokenizer_->token_of(-1), "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer,
                         testing::Values("gpt2_bytelevel", "llama3_style", "smollm_style", "qwen2_style",
                                         "falcon_style", "bloom_style", "llama2_style"),
                         [](const auto& info) { return std::string(info.param); });

/// A directory that holds only the tokenizer.model of llama2_style.
class SentencePieceModel : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy(fixture("tokenizers/llama2_style/tokenizer.model"), directory_.path());
  }
  TemporaryDirectory directory_;
};

TEST_F(SentencePieceModel, EncodesAndDecodesAsSentencePieceItself) {
  const auto tokenizer = Tokenizer::load(directory_.path());
  int compared = 0;
  for (const Json& c : read_cases("llama2_style")) {
    const std::string text = c["text"];
    // SentencePiece reads "<s>" as letters; we, as the reference's tokenizer.json, as the token.
    const bool has_control = text.find("<s>") != std::string::npos ||
                             text.find("</s>") != std::string::npos ||
                             text.find("<unk>") != std::string::npos;
    if (has_control) continue;
    const Ids ids = c["spm_ids"];
    EXPECT_EQ(tokenizer->encode(text, Special::none), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids, Skip::special), c["spm_decoded"].get<std::string>()) << text;
    ++compared;
  }
  EXPECT_GT(compared, 200);
}

TEST_F(SentencePieceModel, AddsBosAndEosAsItsConfigurationSays) {
  const auto plain = Tokenizer::load(directory_.path());
  EXPECT_EQ(plain->encode("", Special::add), Ids({1}));
  write_text(directory_.path() / "tokenizer_config.json",
             R"({"add_bos_token": false, "add_eos_token": true})");
  const auto changed = Tokenizer::load(directory_.path());
  EXPECT_EQ(changed->encode("", Special::add), Ids({2}));
  EXPECT_NE(changed->digest(), plain->digest());
}

TEST_F(SentencePieceModel, YieldsToATokenizerJson) {
  const auto by_model = Tokenizer::load(directory_.path());
  EXPECT_EQ(by_model->id_of("[SEP]"), std::nullopt);
  std::filesystem::copy(fixture("tokenizers/llama2_style/tokenizer.json"), directory_.path());
  const auto by_json = Tokenizer::load(directory_.path());
  EXPECT_EQ(by_json->id_of("[SEP]"), 1400);
  EXPECT_NE(by_json->digest(), by_model->digest());
}

}  // namespace
}  // namespace ptrain
