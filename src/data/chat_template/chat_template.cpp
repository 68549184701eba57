#include "src/data/chat_template/chat_template.h"

#include <utility>

#include "src/data/chat_template/interpreter.h"
#include "src/data/chat_template/parser.h"
#include "src/data/chat_template/text.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr size_t max_source_bytes = size_t{4} << 20;

/// The messages without the keys whose value is null.
Json without_nulls(const Json& messages) {
  Json cleaned = Json::array();
  for (const Json& message : messages) {
    if (!message.is_object()) {
      cleaned.push_back(message);
      continue;
    }
    Json kept = Json::object();
    for (auto it = message.begin(); it != message.end(); ++it) {
      if (!it.value().is_null()) kept[it.key()] = it.value();
    }
    cleaned.push_back(std::move(kept));
  }
  return cleaned;
}

bool has_null(const Json& messages) {
  for (const Json& message : messages) {
    if (!message.is_object()) continue;
    for (const Json& value : message) {
      if (value.is_null()) return true;
    }
  }
  return false;
}

}  // namespace

struct ChatTemplate::Tree {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Tree> tree, std::string where)
    : tree_(std::move(tree)), where_(std::move(where)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::parse(std::string_view source, std::string where) {
  check(source.size() <= max_source_bytes, ExitCode::input,
        "{}: a chat template of {} bytes, more than the {} that are accepted", where, source.size(),
        max_source_bytes);
  check(jinja::is_utf8(source), ExitCode::input, "{}: the chat template is not UTF-8", where);
  auto tree = std::make_unique<Tree>();
  tree->block = jinja::parse_template(source, where);
  return ChatTemplate(std::move(tree), std::move(where));
}

std::string ChatTemplate::render(const Json& messages, AddGenerationPrompt add_generation_prompt,
                                 const Json& extra_variables, std::optional<std::tm> now) const {
  check(messages.is_array(), ExitCode::input, "{}: the messages of a chat are {}, expected an array", where_,
        kind_of(messages));
  const Json cleaned = has_null(messages) ? without_nulls(messages) : Json();
  const Json prompt = add_generation_prompt == AddGenerationPrompt::yes, none;
  jinja::Interpreter interpreter(where_, now);
  interpreter.define("tools", none);
  interpreter.define("documents", none);
  interpreter.define("messages", cleaned.is_null() ? messages : cleaned);
  interpreter.define("add_generation_prompt", prompt);
  if (extra_variables.is_object()) {
    for (auto it = extra_variables.begin(); it != extra_variables.end(); ++it)
      interpreter.define(it.key(), it.value());
  }
  return interpreter.run(tree_->block);
}

}  // namespace ptrain
