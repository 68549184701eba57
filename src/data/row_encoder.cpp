// How each shape of row becomes tokens and labels.
#include <algorithm>
#include <array>
#include <utility>

#include "kernels/base/log.h"
#include "src/data/chat_spans.h"
#include "src/data/chat_template/text.h"
#include "src/data/rows.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

const std::string& text_at(const Json& object, const std::string& key, std::string_view where) {
  const auto found = object.find(key);
  check(found != object.end(), ExitCode::input, "{}: \"{}\" is missing", where, key);
  check(found->is_string(), ExitCode::input, "{}: \"{}\" is {}, expected a string", where, key,
        kind_of(*found));
  const std::string& text = found->get_ref<const std::string&>();
  check(jinja::is_utf8(text), ExitCode::input, "{}: \"{}\" is not UTF-8", where, key);
  return text;
}

/// The wording of Stanford's Alpaca (Taori et al., 2023), for models without a chat template.
std::string alpaca_prompt(const std::string& instruction, const std::string& input) {
  if (input.empty()) {
    return fmt::format(
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request."
        "\n\n### Instruction:\n{}\n\n### Response:\n",
        instruction);
  }
  return fmt::format(
      "Below is an instruction that describes a task, paired with an input that provides further context. "
      "Write a "
      "response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### "
      "Response:\n",
      instruction, input);
}

std::string role_of(const std::string& from, std::string_view where) {
  constexpr std::pair<std::string_view, std::string_view> roles[] = {
      {"human", "user"},      {"user", "user"},       {"gpt", "assistant"},     {"assistant", "assistant"},
      {"model", "assistant"}, {"bot", "assistant"},   {"chatgpt", "assistant"}, {"system", "system"},
      {"tool", "tool"},       {"observation", "tool"}};
  for (const auto& [name, role] : roles) {
    if (name == from) return std::string(role);
  }
  fail(ExitCode::input, "{}: \"from\" is \"{}\", expected human, gpt, system or tool", where, from);
}

Json messages_of_conversation(const Json& turns, std::string_view where) {
  Json messages = Json::array();
  for (const Json& turn : turns) {
    check(turn.is_object(), ExitCode::input, "{}: a turn is {}, expected an object with from and value",
          where, kind_of(turn));
    messages.push_back(
        {{"role", role_of(text_at(turn, "from", where), where)}, {"content", text_at(turn, "value", where)}});
  }
  return messages;
}

void check_messages(const Json& messages, std::string_view where) {
  check(messages.is_array() && !messages.empty(), ExitCode::input,
        "{}: the chat is {}, expected an array of at least one turn", where,
        messages.is_array() ? "an empty array" : kind_of(messages));
  for (const Json& message : messages) {
    check(message.is_object(), ExitCode::input,
          "{}: a message is {}, expected an object with role and content", where, kind_of(message));
    text_at(message, "role", where);
    const auto content = message.find("content");
    const bool has_content = content != message.end() && !content->is_null();
    check(has_content || message.contains("tool_calls"), ExitCode::input, "{}: a message has no \"content\"",
          where);
    if (!has_content) continue;
    check(content->is_string() || content->is_array(), ExitCode::input,
          "{}: the \"content\" of a message is {}, expected a string", where, kind_of(*content));
    if (content->is_string()) text_at(message, "content", where);
  }
}

class Fingerprint {
 public:
  /// FNV-1a, with the length in front so that neighbours do not run together.
  void add(std::string_view text) {
    add(text.size());
    for (const char c : text) mix(static_cast<unsigned char>(c));
  }
  void add(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) mix(static_cast<unsigned char>(number >> shift));
  }
  uint64_t value() const { return value_; }

 private:
  void mix(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3ULL; }
  uint64_t value_ = 0xcbf29ce484222325ULL;
};

}  // namespace

struct RowEncoder::Impl {
  const Tokenizer* tokenizer;
  ModelText text;
  bool is_masked;
  int64_t vocab_size;
  std::optional<std::tm> now;
  std::optional<ChatTemplate> chat_template;
  std::string template_error;  // why it could not be parsed

  void append(Document& document, std::string_view piece, Special special, bool is_supervised) const;
  void append_eos(Document& document) const;
  void encode_prompted(Document& document, std::string_view prompt, std::string_view completion) const;
  void encode_chat(Document& document, const Json& messages, const Json& row, std::string_view where) const;
  void encode_instruction(Document& document, const Json& row, std::string_view where) const;
  void encode_ids(Document& document, const Json& row, std::string_view where) const;
  int32_t id_at(const Json& value, std::string_view key, size_t index, std::string_view where) const;
  void supervise(Document& document, const RenderedChat& chat) const;
  void check_vocabulary(const Document& document, std::string_view where) const;
};

RowEncoder::RowEncoder(const Tokenizer* tokenizer, const ModelText& text, MaskPrompt mask_prompt,
                       int64_t vocab_size, std::optional<std::tm> now) {
  auto impl = std::make_unique<Impl>();
  impl->tokenizer = tokenizer;
  impl->text = text;
  impl->is_masked = mask_prompt == MaskPrompt::yes;
  impl->vocab_size = vocab_size;
  impl->now = now;
  if (text.has_chat_template()) {
    try {
      impl->chat_template = parse_chat_template(text);
    } catch (const Error& error) {
      impl->template_error = error.what();
    }
  }
  if (tokenizer != nullptr && !text.eos.id) {
    log::warn("the model directory names no EOS token: documents of text end without one");
  }
  impl_ = std::move(impl);
}

RowEncoder::~RowEncoder() = default;

Document RowEncoder::encode(const Json& row, RowShape shape, std::string_view where) const {
  const Impl& impl = *impl_;
  const RowShape own = shape_of(row, where);
  check(own == shape, ExitCode::input,
        "{}: this row is {}, those before it are {}; a file holds rows of one shape", where, name_of(own),
        name_of(shape));
  check(impl.tokenizer != nullptr || !needs_tokenizer(shape), ExitCode::input,
        "{}: a row of text needs a tokenizer, but the model directory has neither tokenizer.json nor "
        "tokenizer.model",
        where);
  Document document;
  switch (shape) {
    case RowShape::text:
    case RowShape::input:
      impl.append(document, text_at(row, shape == RowShape::text ? "text" : "input", where), Special::add,
                  true);
      impl.append_eos(document);
      break;
    case RowShape::prompt_completion:
      impl.encode_prompted(document, text_at(row, "prompt", where), text_at(row, "completion", where));
      break;
    case RowShape::instruction:
      impl.encode_instruction(document, row, where);
      break;
    case RowShape::messages:
      impl.encode_chat(document, row["messages"], row, where);
      break;
    case RowShape::conversations: {
      const Json& turns = row["conversations"];
      check(turns.is_array(), ExitCode::input, "{}: \"conversations\" is {}, expected an array", where,
            kind_of(turns));
      impl.encode_chat(document, messages_of_conversation(turns, where), row, where);
      break;
    }
    case RowShape::ids:
      impl.encode_ids(document, row, where);
      break;
  }
  if (shape != RowShape::ids) impl.check_vocabulary(document, where);
  return document;
}

uint64_t RowEncoder::digest() const {
  Fingerprint print;
  print.add(impl_->tokenizer != nullptr ? impl_->tokenizer->digest() : 0);
  print.add(impl_->text.chat_template);
  print.add(impl_->text.template_variables.dump());
  print.add(static_cast<uint64_t>(impl_->text.eos.id.value_or(-1)));
  for (const int32_t id : impl_->text.eos_ids) print.add(static_cast<uint64_t>(id));
  print.add(impl_->is_masked ? 1 : 0);
  if (impl_->now) {
    std::array<char, 40> shown{};
    print.add(std::string_view(shown.data(),
                               std::strftime(shown.data(), shown.size(), "%Y-%m-%dT%H:%M:%S", &*impl_->now)));
  }
  return print.value();
}

void RowEncoder::Impl::append(Document& document, std::string_view piece, Special special,
                              bool is_supervised) const {
  const size_t begin = document.ids.size();
  tokenizer->encode_to(piece, special, document.ids);
  document.labels.resize(document.ids.size(), not_supervised);
  if (!is_supervised && is_masked) return;
  std::copy(document.ids.begin() + static_cast<ptrdiff_t>(begin), document.ids.end(),
            document.labels.begin() + static_cast<ptrdiff_t>(begin));
}

void RowEncoder::Impl::append_eos(Document& document) const {
  if (!text.eos.id || (!document.ids.empty() && document.ids.back() == *text.eos.id)) return;
  document.ids.push_back(*text.eos.id);
  document.labels.push_back(*text.eos.id);
}

void RowEncoder::Impl::encode_prompted(Document& document, std::string_view prompt,
                                       std::string_view completion) const {
  append(document, prompt, Special::add, false);
  const size_t begin = document.ids.size();
  append(document, completion, Special::none, true);
  if (document.ids.size() > begin) return append_eos(document);
  if (text.eos.id) {  // an empty completion: the prompt's own last token does not count
    document.ids.push_back(*text.eos.id);
    document.labels.push_back(*text.eos.id);
  }
}

void RowEncoder::Impl::encode_instruction(Document& document, const Json& row, std::string_view where) const {
  const std::string& instruction = text_at(row, "instruction", where);
  const bool has_input = row.contains("input") && !row["input"].is_null();
  const std::string input = has_input ? text_at(row, "input", where) : std::string();
  const std::string& output = text_at(row, "output", where);
  if (!text.has_chat_template()) return encode_prompted(document, alpaca_prompt(instruction, input), output);
  const Json messages = Json::array(
      {{{"role", "user"}, {"content", input.empty() ? instruction : instruction + "\n\n" + input}},
       {{"role", "assistant"}, {"content", output}}});
  encode_chat(document, messages, row, where);
}

void RowEncoder::Impl::encode_chat(Document& document, const Json& messages, const Json& row,
                                   std::string_view where) const {
  check_messages(messages, where);
  check(text.has_chat_template(), ExitCode::input,
        "{}: a chat needs the model's chat template, but there is neither chat_template.jinja nor "
        "\"chat_template\" in "
        "tokenizer_config.json. Add one, or give the rows as prompt and completion",
        where);
  check(chat_template.has_value(), ExitCode::input, "{}: the model's chat template cannot be used: {}", where,
        template_error);
  const ChatSetting setting{*chat_template, text, *tokenizer, now};
  Json variables = text.template_variables;
  if (row.contains("tools")) variables["tools"] = row["tools"];
  if (is_masked) return supervise(document, render_with_turns(setting, messages, variables, where));
  append(document, render_chat(setting, messages, variables, where), Special::none, true);
}

/// Labels of the tokens that lie, at least in part, within a turn.
void RowEncoder::Impl::supervise(Document& document, const RenderedChat& chat) const {
  append(document, chat.text, Special::none, false);
  const std::vector<int32_t>& ids = document.ids;
  size_t text_start = 0, token_start = 0;  // where both the text and the tokens have a border
  std::vector<int32_t> part;
  // How many tokens lie wholly before a byte of the text.
  const auto tokens_before = [&](size_t byte) {
    for (;;) {
      part.clear();
      tokenizer->encode_to(std::string_view(chat.text).substr(text_start, byte - text_start), Special::none,
                           part);
      const auto rest = ids.begin() + static_cast<ptrdiff_t>(token_start);
      const auto [last, unused] = std::mismatch(part.begin(), part.end(), rest, ids.end());
      const size_t count = token_start + static_cast<size_t>(last - part.begin());
      if (last == part.end() || last != part.begin() || text_start == 0) return count;
      text_start = token_start = 0;  // no border after all: what follows it swallowed a blank
    }
  };
  for (const TextSpan& turn : chat.turns) {
    const size_t begin = tokens_before(turn.begin);
    const bool ends_text = turn.end == chat.text.size();
    size_t end = ends_text ? ids.size() : tokens_before(turn.end);
    const bool is_border = ends_text || part.size() == end - token_start;
    if (!is_border && end < ids.size()) ++end;  // the token across the turn's end is partly the turn's
    std::copy(ids.begin() + static_cast<ptrdiff_t>(begin),
              ids.begin() + static_cast<ptrdiff_t>(std::max(begin, end)),
              document.labels.begin() + static_cast<ptrdiff_t>(begin));
    if (is_border) {
      text_start = turn.end;
      token_start = end;
    }
  }
}

int32_t RowEncoder::Impl::id_at(const Json& value, std::string_view key, size_t index,
                                std::string_view where) const {
  check(value.is_number_integer(), ExitCode::input, "{}: {}[{}] is {}, expected an integer", where, key,
        index, kind_of(value));
  const bool is_huge = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t id = is_huge ? INT64_MAX : value.get<int64_t>();
  if (id == not_supervised && key == "labels") return not_supervised;
  check(id >= 0 && id < vocab_size, ExitCode::input,
        "{}: {}[{}] is {}, outside of the vocabulary of {} tokens; were these ids made for another model?",
        where, key, index, value.dump(), vocab_size);
  return static_cast<int32_t>(id);
}

void RowEncoder::Impl::encode_ids(Document& document, const Json& row, std::string_view where) const {
  const auto read = [&](const std::string& key) {
    const Json& values = row[key];
    check(values.is_array(), ExitCode::input, "{}: \"{}\" is {}, expected an array of integers", where, key,
          kind_of(values));
    std::vector<int32_t> ids;
    ids.reserve(values.size());
    for (const Json& value : values) ids.push_back(id_at(value, key, ids.size(), where));
    return ids;
  };
  document.ids = read("input_ids");
  document.labels = row.contains("labels") ? read("labels") : document.ids;
  check(document.labels.size() == document.ids.size(), ExitCode::input,
        "{}: \"labels\" has {} entries, \"input_ids\" has {}; they must be aligned", where,
        document.labels.size(), document.ids.size());
  if (const auto mask = row.find("attention_mask"); mask != row.end() && mask->is_array()) {
    check(std::none_of(mask->begin(), mask->end(), [](const Json& value) { return value == 0; }),
          ExitCode::input,
          "{}: \"attention_mask\" has zeros, so the row is padded; give the rows without padding", where);
  }
  if (is_masked) return;
  for (size_t i = 0; i < document.ids.size(); ++i) {
    if (document.labels[i] == not_supervised) document.labels[i] = document.ids[i];
  }
}

void RowEncoder::Impl::check_vocabulary(const Document& document, std::string_view where) const {
  for (const int32_t id : document.ids) {
    check(id < vocab_size, ExitCode::input,
          "{}: the tokenizer gives id {} (\"{}\"), outside of the model's vocabulary of {} tokens; tokenizer "
          "and "
          "config.json do not belong together",
          where, id, tokenizer->token_of(id), vocab_size);
  }
}

}  // namespace ptrain
