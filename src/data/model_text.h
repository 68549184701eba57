// What a model directory says about text beside its tokenizer: the tokens that begin, end and pad, and the
// chat template. Every file and every entry may be missing; a directory for rows of ids needs none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/data/chat_template/chat_template.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/json.h"

namespace ptrain {

/// A token with a role: how it is written, "" where that is not known, and its id.
struct RoleToken {
  std::string text;
  std::optional<int32_t> id;
};

struct ModelText {
  RoleToken bos;
  RoleToken eos;  // the one that ends a document of text
  RoleToken pad;

  /// Every id at which a reply ends, ascending: those of generation_config.json, config.json and `eos`.
  std::vector<int32_t> eos_ids;

  /// Source of the chat template, "" where there is none, and the file it is from.
  std::string chat_template;
  std::string chat_template_where;

  /// What the template sees beside the messages: bos_token, eos_token, … as far as they are known.
  Json template_variables = Json::object();

  bool has_chat_template() const { return !chat_template.empty(); }
};

/// Reads tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json and
/// chat_template.jinja as far as they are there. tokenizer_config.json wins over special_tokens_map.json,
/// chat_template.jinja over both; ids come from the tokenizer by the token's text (null: none), else from
/// generation_config.json, else from config.json.
/// Errors: ExitCode::input with file and key: broken JSON, wrong types, named templates without "default".
ModelText read_model_text(const std::filesystem::path& model_dir, const Tokenizer* tokenizer);

/// The parsed template. Errors: ExitCode::input: there is none, or it is broken.
ChatTemplate parse_chat_template(const ModelText& text);

/// A chat that ends with the beginning of the assistant's answer: what a model continues.
/// Errors: ExitCode::input, also where the template refuses the messages.
std::string render_prompt(const ModelText& text, const Json& messages,
                          std::optional<std::tm> now = std::nullopt);

}  // namespace ptrain
