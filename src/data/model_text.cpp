#include "src/data/model_text.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr int64_t max_file_bytes = int64_t{64} << 20;

/// A file's object, and where it is; an empty object where there is no such file.
struct Source {
  Json json = Json::object();
  std::string where;
};

Source read_source(const std::filesystem::path& path) {
  Source source{Json::object(), path.string()};
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return source;
  source.json = read_json(path, max_file_bytes);
  check(source.json.is_object(), ExitCode::input, "{}: expected an object, found {}", source.where,
        kind_of(source.json));
  return source;
}

/// A token's text: a string, or an object with "content"; "" where it is absent or null.
std::string token_text(const Source& source, const std::string& key) {
  const auto found = source.json.find(key);
  if (found == source.json.end() || found->is_null()) return {};
  if (found->is_object()) return required<std::string>(*found, "content", source.where + ": " + key);
  return json_cast<std::string>(*found, key, source.where);
}

/// The ids at a key: a number, a list of numbers, or none.
std::vector<int32_t> token_ids(const Source& source, const std::string& key) {
  const auto found = source.json.find(key);
  if (found == source.json.end() || found->is_null()) return {};
  std::vector<int32_t> ids;
  const auto add = [&](const Json& value) {
    const auto id = json_cast<int64_t>(value, key, source.where);
    if (id == -1) return;  // some files write "none" so
    check(id >= 0 && id <= INT32_MAX, ExitCode::input, "{}: \"{}\" is {}, which is no token id", source.where,
          key, id);
    ids.push_back(static_cast<int32_t>(id));
  };
  if (found->is_array()) {
    for (const Json& value : *found) add(value);
  } else {
    add(*found);
  }
  return ids;
}

struct Sources {
  Source tokenizer_config, special_tokens, generation, model;
};

/// What the files call the token of a role; "" where they name none.
std::string named_token(const Sources& sources, const std::string& role) {
  std::string text = token_text(sources.tokenizer_config, role + "_token");
  return text.empty() ? token_text(sources.special_tokens, role + "_token") : text;
}

RoleToken role_token(const Sources& sources, const std::string& role, const Tokenizer* tokenizer) {
  RoleToken token;
  token.text = named_token(sources, role);
  if (tokenizer != nullptr && !token.text.empty()) token.id = tokenizer->id_of(token.text);
  for (const Source* source : {&sources.generation, &sources.model}) {
    if (token.id) break;
    const std::vector<int32_t> ids = token_ids(*source, role + "_token_id");
    if (!ids.empty()) token.id = ids.front();
  }
  if (token.text.empty() && token.id && tokenizer != nullptr) token.text = tokenizer->token_of(*token.id);
  return token;
}

/// The template of a tokenizer_config.json: a string, or a list of {"name", "template"}.
std::string template_of(const Source& source) {
  const auto found = source.json.find("chat_template");
  if (found == source.json.end() || found->is_null()) return {};
  if (!found->is_array()) return json_cast<std::string>(*found, "chat_template", source.where);
  std::string names;
  for (const Json& entry : *found) {
    const std::string where = source.where + ": chat_template";
    check(entry.is_object(), ExitCode::input, "{}: an entry is {}, expected an object with name and template",
          where, kind_of(entry));
    const auto name = required<std::string>(entry, "name", where);
    if (name == "default") return required<std::string>(entry, "template", where);
    names += (names.empty() ? "" : ", ") + name;
  }
  fail(ExitCode::input, "{}: none of the chat templates is named \"default\" (there are: {})", source.where,
       names);
}

}  // namespace

ModelText read_model_text(const std::filesystem::path& model_dir, const Tokenizer* tokenizer) {
  const Sources sources = {
      read_source(model_dir / "tokenizer_config.json"), read_source(model_dir / "special_tokens_map.json"),
      read_source(model_dir / "generation_config.json"), read_source(model_dir / "config.json")};
  ModelText text;
  text.bos = role_token(sources, "bos", tokenizer);
  text.eos = role_token(sources, "eos", tokenizer);
  text.pad = role_token(sources, "pad", tokenizer);

  for (const Source* source : {&sources.generation, &sources.model}) {
    const std::vector<int32_t> ids = token_ids(*source, "eos_token_id");
    text.eos_ids.insert(text.eos_ids.end(), ids.begin(), ids.end());
  }
  if (text.eos.id) text.eos_ids.push_back(*text.eos.id);
  std::sort(text.eos_ids.begin(), text.eos_ids.end());
  text.eos_ids.erase(std::unique(text.eos_ids.begin(), text.eos_ids.end()), text.eos_ids.end());

  for (const char* role : {"bos", "eos", "pad", "unk", "sep", "cls", "mask"}) {
    const std::string token =
        named_token(sources, role);  // known by its id alone: undefined, as templates expect
    if (!token.empty()) text.template_variables[std::string(role) + "_token"] = token;
  }

  const std::filesystem::path file = model_dir / "chat_template.jinja";
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    text.chat_template = read_text(file, max_file_bytes);
    text.chat_template_where = file.string();
  } else {
    text.chat_template = template_of(sources.tokenizer_config);
    text.chat_template_where = sources.tokenizer_config.where + ": chat_template";
  }
  return text;
}

ChatTemplate parse_chat_template(const ModelText& text) {
  check(text.has_chat_template(), ExitCode::input,
        "the model directory has no chat template: neither chat_template.jinja nor \"chat_template\" in "
        "tokenizer_config.json. Use rows of prompt and completion, or put the template of the model there");
  return ChatTemplate::parse(text.chat_template, text.chat_template_where);
}

std::string render_prompt(const ModelText& text, const Json& messages, std::optional<std::tm> now) {
  return parse_chat_template(text).render(messages, AddGenerationPrompt::yes, text.template_variables, now);
}

}  // namespace ptrain
