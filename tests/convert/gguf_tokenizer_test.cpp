#include "src/convert/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "src/data/tokenizer/tokenizer.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

/// A tokenizer.json whose added tokens have no properties that a GGUF file cannot hold.
Json plain_tokenizer(const std::string& kind) {
  Json tokenizer = read_json(fixture("tokenizers/" + kind + "/tokenizer.json"));
  for (Json& token : tokenizer["added_tokens"]) {
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) token[flag] = false;
  }
  return tokenizer;
}

/// The same as the metadata of a GGUF file.
GgufWriter to_gguf(const Json& tokenizer, const std::string& kind, const std::string& pre) {
  const Json& vocabulary = tokenizer["model"]["vocab"];
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  const auto place = [&](const std::string& text, size_t id, int32_t type) {
    if (id >= tokens.size()) {
      for (size_t hole = tokens.size(); hole <= id; ++hole)
        tokens.push_back(fmt::format("[unused {}]", hole));
      types.resize(id + 1, 5);
    }
    tokens[id] = text;
    types[id] = type;
  };
  for (const auto& [text, id] : vocabulary.items()) {
    const bool is_byte = kind == "llama" && text.size() == 6 && text.starts_with("<0x");
    place(text, id.get<size_t>(), is_byte ? 6 : 1);
  }
  for (const Json& token : tokenizer["added_tokens"]) {
    const auto text = token["content"].get<std::string>();
    const int32_t type = text == "<unk>" ? 2 : token["special"] == true ? 3 : 4;
    place(text, token["id"].get<size_t>(), type);
  }
  GgufWriter writer;
  writer.set("tokenizer.ggml.model", kind);
  writer.set("tokenizer.ggml.tokens", tokens);
  writer.set("tokenizer.ggml.token_type", types);
  if (kind == "gpt2") {
    writer.set("tokenizer.ggml.pre", pre);
    std::vector<std::string> merges;
    for (const Json& merge : tokenizer["model"]["merges"]) {
      merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
    writer.set("tokenizer.ggml.merges", merges);
  } else {
    std::vector<float> scores;  // as SentencePiece's trainer gives them: falling with the id
    for (size_t id = 0; id < tokens.size(); ++id)
      scores.push_back(types[id] == 1 ? -static_cast<float>(id) : 0.0f);
    writer.set("tokenizer.ggml.scores", scores);
    writer.set("tokenizer.ggml.unknown_token_id", 0);
  }
  if (!tokenizer["post_processor"].is_null()) {
    const Json processors =
        tokenizer["post_processor"].value("processors", Json::array({tokenizer["post_processor"]}));
    for (const Json& processor : processors) {
      if (processor["type"] != "TemplateProcessing") continue;
      const Json& special = processor["special_tokens"].front();
      writer.set("tokenizer.ggml.bos_token_id", special["ids"][0].get<uint32_t>());
    }
  }
  return writer;
}

ImportedTokenizer import_tokenizer(const GgufWriter& writer) {
  TemporaryDirectory directory;
  writer.write(directory.path() / "x.gguf");
  return read_gguf_tokenizer(GgufFile::open(directory.path() / "x.gguf"));
}

TEST(GgufTokenizer, GivesTheSameIdsAsTheTokenizerItWasMadeFrom) {
  struct Case {
    std::string name, kind, pre;
  };
  for (const Case& c : {Case{"smollm_style", "gpt2", "smollm"}, Case{"llama3_style", "gpt2", "llama-bpe"},
                        Case{"qwen2_style", "gpt2", "qwen2"}, Case{"gpt2_bytelevel", "gpt2", "gpt-2"},
                        Case{"llama2_style", "llama", ""}}) {
    const Json original = plain_tokenizer(c.name);
    const auto truth = Tokenizer::from_json(original.dump(), c.name);
    const ImportedTokenizer imported = import_tokenizer(to_gguf(original, c.kind, c.pre));
    const auto tokenizer = Tokenizer::from_json(imported.tokenizer.dump(), "imported " + c.name);
    const std::string text = read_text(fixture("tokenizers/" + c.name + "/cases.jsonl"), 1 << 26);
    int64_t rows = 0;
    for (size_t at = 0; at < text.size(); ++rows) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const Json row = parse_json(std::string_view(text).substr(at, end - at), "cases");
      const auto line = row["text"].get<std::string>();
      const std::vector<int32_t> ids = truth->encode(line, Special::add);
      ASSERT_EQ(tokenizer->encode(line, Special::add), ids) << c.name << ": " << line;
      ASSERT_EQ(tokenizer->decode(ids, Skip::none), truth->decode(ids, Skip::none)) << c.name << ": " << line;
      ASSERT_EQ(tokenizer->decode(ids, Skip::special), truth->decode(ids, Skip::special)) << c.name;
      at = end + 1;
    }
    EXPECT_GT(rows, 50);
  }
}

TEST(GgufTokenizer, MergesOfASentencePieceVocabularyAreFoundFromItsScores) {
  const Json original = plain_tokenizer("llama2_style");
  const ImportedTokenizer imported = import_tokenizer(to_gguf(original, "llama", ""));
  const Json& merges = imported.tokenizer["model"]["merges"];
  const Json& expected = original["model"]["merges"];
  ASSERT_EQ(merges.size(), expected.size());
  for (size_t i = 0; i < merges.size(); ++i) ASSERT_EQ(merges[i], expected[i]) << i;
}

TEST(GgufTokenizer, SettingsNameTheSpecialTokensAndTheChatTemplate) {
  GgufWriter writer = to_gguf(plain_tokenizer("smollm_style"), "gpt2", "smollm");
  writer.set("tokenizer.ggml.eos_token_id", 2);
  writer.set("tokenizer.ggml.padding_token_id", 2);
  writer.set("tokenizer.ggml.add_eos_token", true);
  writer.set("tokenizer.chat_template", "{{ messages }}");
  const ImportedTokenizer imported = import_tokenizer(writer);
  EXPECT_EQ(imported.settings["eos_token"], "<file_sep>");
  EXPECT_EQ(imported.settings["pad_token"], "<file_sep>");
  EXPECT_EQ(imported.settings["bos_token"], nullptr);
  EXPECT_EQ(imported.settings["chat_template"], "{{ messages }}");
  EXPECT_EQ(imported.eos_id, 2);
  const auto tokenizer = Tokenizer::from_json(imported.tokenizer.dump(), "imported");
  EXPECT_EQ(tokenizer->encode("!", Special::add), (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(tokenizer->encode("!", Special::none), std::vector<int32_t>{3});
}

TEST(GgufTokenizer, BrokenOrUnknownTokenizersAreRefusedByName) {
  struct Case {
    std::function<void(GgufWriter&)> make;
    std::string reason;
  };
  using Texts = std::vector<std::string>;
  const auto bpe = [](GgufWriter& w, const Texts& merges, const std::string& pre = "gpt-2") {
    w.set("tokenizer.ggml.model", "gpt2");
    w.set("tokenizer.ggml.pre", pre);
    w.set("tokenizer.ggml.tokens", Texts{"a", "b", "ab"});
    w.set("tokenizer.ggml.merges", merges);
  };
  const Case cases[] = {
      {[](auto& w) { w.set("tokenizer.ggml.model", "bert"); },
       "of the kind \"bert\", supported are gpt2 and llama"},
      {[](auto& w) { w.set("tokenizer.ggml.model", "gpt2"); }, "\"tokenizer.ggml.tokens\" is missing"},
      {[&](auto& w) { bpe(w, {"a b"}, "klingon"); }, "of the kind \"klingon\""},
      {[&](auto& w) { bpe(w, {"ab"}); }, "the merge \"ab\" is not a pair"},
      {[&](auto& w) { bpe(w, {"a c"}); }, "is of \"c\", which is not a token"},
      {[&](auto& w) { bpe(w, {"b a"}); }, "is of \"ba\", which is not a token"},
      {[&](auto& w) {
         bpe(w, {});
         w.set("tokenizer.ggml.eos_token_id", 3);
       },
       "eos_token_id is 3, but there are 3 tokens"},
      {[&](auto& w) {
         bpe(w, {});
         w.set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1});
       },
       "3 tokens, but token_type has 2"},
      {[](auto& w) {
         w.set("tokenizer.ggml.model", "llama");
         w.set("tokenizer.ggml.tokens", Texts{"a", "a"});
       },
       "the token \"a\" appears twice, as 0 and 1"},
      {[](auto& w) {
         w.set("tokenizer.ggml.model", "llama");
         w.set("tokenizer.ggml.tokens", Texts{"a", "b"});
         w.set("tokenizer.ggml.scores", std::vector<float>{1});
       },
       "2 tokens, but 1 scores"},
  };
  for (const Case& c : cases) {
    GgufWriter writer;
    c.make(writer);
    std::string reason;
    try {
      import_tokenizer(writer);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      reason = error.what();
    }
    EXPECT_NE(reason.find(c.reason), std::string::npos) << reason << "\n  expected: " << c.reason;
  }
}

}  // namespace
}  // namespace ptrain
