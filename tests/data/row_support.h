// Models, chats and documents as the tests of rows need them.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/data/rows.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {

inline constexpr int64_t vocab_size = 5000;

inline std::unique_ptr<Tokenizer> load(std::string_view kind) {
  return Tokenizer::load(fixture("tokenizers") / kind);
}

/// A model whose EOS is `eos` and whose template, if any, is one of the fixtures'.
inline ModelText model_with(const Tokenizer& tokenizer, const std::string& eos,
                            const std::string& chat = "") {
  ModelText text;
  text.eos = {eos, tokenizer.id_of(eos)};
  if (text.eos.id) text.eos_ids = {*text.eos.id};
  text.template_variables = {{"eos_token", eos}};
  if (chat.empty()) return text;
  const Json config = read_json(fixture("chat_templates") / chat / "tokenizer_config.json");
  text.chat_template = config["chat_template"].get<std::string>();
  text.chat_template_where = chat;
  for (const char* key : {"bos_token", "eos_token"}) {
    if (config[key].is_string()) text.template_variables[key] = config[key];
  }
  return text;
}

/// The text of a document with its supervised parts in brackets.
inline std::string shown(const Tokenizer& tokenizer, const Document& document) {
  EXPECT_EQ(document.ids.size(), document.labels.size());
  std::string out;
  std::vector<int32_t> run;
  for (size_t t = 0; t <= document.ids.size(); ++t) {
    const auto is_supervised = [&](size_t i) { return document.labels[i] != not_supervised; };
    if (t == document.ids.size() || (!run.empty() && is_supervised(t) != is_supervised(t - 1))) {
      const std::string text = tokenizer.decode(run, Skip::none);
      out += !run.empty() && is_supervised(t - 1) ? "⟦" + text + "⟧" : text;
      run.clear();
    }
    if (t == document.ids.size()) break;
    if (is_supervised(t)) {
      EXPECT_EQ(document.labels[t], document.ids[t]);
    }
    run.push_back(document.ids[t]);
  }
  return out;
}

inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return "no error";
}

inline Json chat(std::initializer_list<std::pair<const char*, const char*>> turns) {
  Json messages = Json::array();
  for (const auto& [role, content] : turns) messages.push_back({{"role", role}, {"content", content}});
  return {{"messages", messages}};
}

/// The row's document with supervised parts in brackets.
inline std::string encoded(const Tokenizer& tokenizer, const ModelText& text, const Json& row,
                           MaskPrompt mask = MaskPrompt::yes) {
  const RowEncoder encoder(&tokenizer, text, mask, vocab_size);
  return shown(tokenizer, encoder.encode(row, encoder.shape_of(row, "f:1"), "f:1"));
}

}  // namespace ptrain
