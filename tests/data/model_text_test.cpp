#include "src/data/model_text.h"

#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

using Files = std::vector<std::pair<const char*, const char*>>;

ModelText read_from(const Files& files, const Tokenizer* tokenizer = nullptr) {
  const TemporaryDirectory directory;
  for (const auto& [name, text] : files) write_text(directory.path() / name, text);
  return read_model_text(directory.path(), tokenizer);
}

std::string error_of(const Files& files) {
  try {
    read_from(files);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return "no error";
}

TEST(ModelText, OfADirectoryWithoutTextIsEmpty) {
  const ModelText text = read_from({{"config.json", R"({"vocab_size": 10})"}});
  EXPECT_TRUE(text.eos_ids.empty());
  EXPECT_FALSE(text.eos.id.has_value());
  EXPECT_FALSE(text.has_chat_template());
  EXPECT_TRUE(text.template_variables.empty());
  EXPECT_THROW(parse_chat_template(text), Error);
}

TEST(ModelText, TakesTokensAsTextOrAsObjectsAndIdsFromTheTokenizer) {
  const auto tokenizer = Tokenizer::load(fixture("tokenizers/smollm_style"));
  const ModelText text = read_from(
      {{"tokenizer_config.json",
        R"({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "unk_token": null})"},
       {"special_tokens_map.json", R"({"eos_token": "[SEP]", "pad_token": {"content": "<|endoftext|>"}})"},
       {"generation_config.json", R"({"eos_token_id": [7, 1123]})"},
       {"config.json", R"({"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": null})"}},
      tokenizer.get());
  EXPECT_EQ(text.bos.text, "<|im_start|>");
  EXPECT_EQ(text.bos.id, 1122);
  EXPECT_EQ(text.eos.text, "<|im_end|>");
  EXPECT_EQ(text.eos.id, 1123);
  EXPECT_EQ(text.pad.id, 0);
  EXPECT_EQ(text.eos_ids, (std::vector<int32_t>{3, 7, 1123}));
  EXPECT_EQ(
      text.template_variables,
      (Json{{"bos_token", "<|im_start|>"}, {"eos_token", "<|im_end|>"}, {"pad_token", "<|endoftext|>"}}));
}

TEST(ModelText, TakesIdsFromTheConfigsWhereNoTokenIsNamed) {
  const ModelText text =
      read_from({{"config.json", R"({"eos_token_id": [9, 4], "bos_token_id": 1, "pad_token_id": -1})"}});
  EXPECT_EQ(text.eos.id, 9);
  EXPECT_EQ(text.bos.id, 1);
  EXPECT_FALSE(text.pad.id.has_value());
  EXPECT_EQ(text.eos_ids, (std::vector<int32_t>{4, 9}));
  EXPECT_TRUE(text.template_variables.empty());
  const ModelText both = read_from(
      {{"config.json", R"({"eos_token_id": 9})"}, {"generation_config.json", R"({"eos_token_id": 8})"}});
  EXPECT_EQ(both.eos.id, 8);
  EXPECT_EQ(both.eos_ids, (std::vector<int32_t>{8, 9}));
}

TEST(ModelText, FindsTheChatTemplateWhereverItStands) {
  const char* config = R"({"chat_template": "config", "eos_token": "</s>"})";
  EXPECT_EQ(read_from({{"tokenizer_config.json", config}}).chat_template, "config");
  EXPECT_EQ(read_from({{"tokenizer_config.json", config}, {"chat_template.jinja", "file"}}).chat_template,
            "file");
  const char* named =
      R"({"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]})";
  EXPECT_EQ(read_from({{"tokenizer_config.json", named}}).chat_template, "b");
  const Json messages = Json::array({{{"role", "user"}, {"content", "hi"}}});
  const ModelText text = read_from({{"tokenizer_config.json", R"({"chat_template":
      "{{ messages[0].content }}{{ eos_token }}{% if add_generation_prompt %}A:{% endif %}", "eos_token": "</s>"})"}});
  EXPECT_EQ(render_prompt(text, messages), "hi</s>A:");
}

TEST(ModelText, RefusesBrokenFilesWithTheirNameAndKey) {
  const std::pair<Files, const char*> cases[] = {
      {{{"tokenizer_config.json", "{"}}, "tokenizer_config.json:1:"},
      {{{"config.json", "[]"}}, "config.json: expected an object, found an array"},
      {{{"tokenizer_config.json", R"({"eos_token": 5})"}}, "\"eos_token\" is an integer, expected a string"},
      {{{"tokenizer_config.json", R"({"eos_token": {}})"}}, "eos_token: \"content\" is missing"},
      {{{"config.json", R"({"eos_token_id": "2"})"}}, "\"eos_token_id\" is a string, expected an integer"},
      {{{"config.json", R"({"eos_token_id": -7})"}}, "\"eos_token_id\" is -7, which is no token id"},
      {{{"tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})"}},
       "none of the chat templates is named \"default\" (there are: rag)"},
      {{{"tokenizer_config.json", R"({"chat_template": 1})"}},
       "\"chat_template\" is an integer, expected a string"},
  };
  for (const auto& [files, message] : cases) {
    const std::string found = error_of(files);
    EXPECT_NE(found.find(message), std::string::npos) << found;
  }
}

}  // namespace
}  // namespace ptrain
