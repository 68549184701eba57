#include "src/data/chat_spans.h"

#include <algorithm>
#include <array>
#include <utility>

#include "src/data/chat_template/text.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// Chats longer than this are not looked through prefix by prefix, which costs their length squared.
constexpr size_t max_prefix_messages = 400;

bool is_assistant(const Json& message) {
  const std::string role = message.value("role", "");
  return role == "assistant" || role == "model";
}

bool has_plain_content(const Json& message) {
  const auto content = message.find("content");
  const auto calls = message.find("tool_calls");
  const bool has_calls = calls != message.end() && !calls->is_null() && !calls->empty();
  return content != message.end() && content->is_string() && !has_calls;
}

/// The mark that stands for the content of turn `index`: private-use characters, which nothing strips.
std::string mark_of(size_t index) {
  return "\xee\x80\x80" + std::to_string(index) + "\xee\x80\x81";
}

Json first_messages(const Json& messages, size_t count) {
  Json part = Json::array();
  for (size_t i = 0; i < count; ++i) part.push_back(messages[i]);
  return part;
}

Json some_question() {
  return Json::array({{{"role", "user"}, {"content", "?"}}});
}

/// One row's chat, looked at for its turns.
class TurnFinder {
 public:
  TurnFinder(const ChatSetting& setting, const Json& messages, const Json& variables, const std::string& text)
      : setting_(setting), messages_(messages), variables_(variables), text_(text) {
    for (size_t i = 0; i < messages.size(); ++i) {
      if (is_assistant(messages[i])) turns_.push_back(i);
    }
  }

  std::optional<std::vector<TextSpan>> by_marks();
  std::optional<std::vector<TextSpan>> by_prefixes();

 private:
  /// The rendering, or nothing where the template refuses it.
  std::optional<std::string> rendered(const Json& messages, AddGenerationPrompt prompt) const {
    try {
      return setting_.chat_template.render(messages, prompt, variables_, setting_.now);
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  Json marked_messages() const;
  std::vector<std::string> marked_gaps() const;
  std::optional<std::string> generation_prompt(const Json& context) const;
  std::string leader(const std::vector<std::string>& gaps) const;
  size_t turn_end(std::string_view tail) const;
  size_t last_turn_end(std::string_view turn) const;
  bool ends_turn(int32_t id) const;

  const ChatSetting& setting_;
  const Json& messages_;
  const Json& variables_;
  const std::string& text_;
  std::vector<size_t> turns_;  // indices of the assistant's messages
  Json marked_;
};

Json TurnFinder::marked_messages() const {
  Json marked = messages_;
  for (size_t k = 0; k < turns_.size(); ++k) marked[turns_[k]]["content"] = mark_of(k);
  return marked;
}

/// The template's text before, between and behind the marks; empty where a mark is not there exactly once.
std::vector<std::string> TurnFinder::marked_gaps() const {
  const std::optional<std::string> whole = rendered(marked_, AddGenerationPrompt::no);
  if (!whole) return {};
  std::vector<std::string> gaps;
  size_t at = 0;
  for (size_t k = 0; k < turns_.size(); ++k) {
    const std::string mark = mark_of(k);
    const size_t found = whole->find(mark, at);
    if (found == std::string::npos || whole->find(mark, found + 1) != std::string::npos) return {};
    gaps.push_back(whole->substr(at, found - at));
    at = found + mark.size();
  }
  gaps.push_back(whole->substr(at));
  return gaps;
}

bool TurnFinder::ends_turn(int32_t id) const {
  const std::vector<int32_t>& ends = setting_.model.eos_ids;
  return setting_.tokenizer.is_special(id) || std::find(ends.begin(), ends.end(), id) != ends.end();
}

/// Bytes of `tail`, which follows a content, up to and with the token that ends the turn; 0 if none follows
/// directly.
size_t TurnFinder::turn_end(std::string_view tail) const {
  const std::string_view rest = jinja::strip(tail, jinja::Side::left);
  for (const int32_t id : setting_.tokenizer.encode(rest, Special::none)) {
    const std::string token = setting_.tokenizer.token_of(id);
    if (ends_turn(id) && rest.starts_with(token)) return tail.size() - rest.size() + token.size();
    const std::string shown = setting_.tokenizer.decode(std::array{id}, Skip::none);
    if (!jinja::strip(shown, jinja::Side::both).empty()) return 0;
  }
  return 0;
}

/// Bytes of `turn` up to and with its last token if that one ends turns, else without white space at the end.
size_t TurnFinder::last_turn_end(std::string_view turn) const {
  const std::string_view kept = jinja::strip(turn, jinja::Side::right);
  const std::vector<int32_t> ids = setting_.tokenizer.encode(turn, Special::none);
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    if (ends_turn(*id)) {
      const std::string token = setting_.tokenizer.token_of(*id);
      const size_t found = turn.rfind(token);
      if (found != std::string_view::npos) return found + token.size();
    }
    const std::string shown = setting_.tokenizer.decode(std::array{*id}, Skip::none);
    if (!jinja::strip(shown, jinja::Side::both).empty()) break;
  }
  return kept.size();
}

/// What the template adds to a chat to ask for an answer; nothing where it refuses the chat.
std::optional<std::string> TurnFinder::generation_prompt(const Json& context) const {
  const std::optional<std::string> prompt = rendered(context, AddGenerationPrompt::yes);
  const std::optional<std::string> without = rendered(context, AddGenerationPrompt::no);
  if (!prompt || !without || !prompt->starts_with(*without)) return std::nullopt;
  return prompt->substr(without->size());
}

/// What the assistant itself writes before its content: the text between the end of a prompt and the mark.
/// Often nothing, or a blank where the prompt ends without one.
std::string TurnFinder::leader(const std::vector<std::string>& gaps) const {
  // 1. The first turn that answers something, and the text before it.
  size_t k = 0;
  std::string before = gaps.front();
  if (turns_.front() == 0 && turns_.size() > 1) {
    before += mark_of(0) + gaps[1];
    k = 1;
  }
  const size_t last_gap = before.size() - gaps[k].size();
  const Json context = turns_[k] > 0 ? first_messages(marked_, turns_[k]) : some_question();
  // 2. The prompt for it is the text's beginning, …
  const std::optional<std::string> prompt = rendered(context, AddGenerationPrompt::yes);
  if (prompt && prompt->size() >= last_gap && before.starts_with(*prompt))
    return before.substr(prompt->size());
  // … or the rest of the chat changes its beginning (a system message that is put into the last turn): then
  // the generation prompt alone is looked for.
  const std::optional<std::string> asking = generation_prompt(context);
  const std::string& gap = gaps[k];
  if (!asking) return {};
  if (asking->empty()) return gap.substr(jinja::strip(gap, jinja::Side::right).size());
  const size_t found = gap.rfind(*asking);
  return found == std::string::npos ? std::string() : gap.substr(found + asking->size());
}

std::optional<std::vector<TextSpan>> TurnFinder::by_marks() {
  const bool is_plain =
      std::all_of(turns_.begin(), turns_.end(), [&](size_t i) { return has_plain_content(messages_[i]); });
  if (!is_plain) return std::nullopt;
  if (turns_.empty()) return std::vector<TextSpan>();
  marked_ = marked_messages();
  const std::vector<std::string> gaps = marked_gaps();
  if (gaps.empty()) return std::nullopt;

  // 1. Contents in the place of the marks, as they are or stripped, must give the text.
  std::vector<TextSpan> turns;
  const auto fits = [&](auto strip) {
    std::string joined = gaps.front();
    turns.clear();
    for (size_t k = 0; k < turns_.size(); ++k) {
      const size_t begin = joined.size();
      joined += strip(messages_[turns_[k]]["content"].get_ref<const std::string&>());
      turns.push_back({begin, joined.size()});
      joined += gaps[k + 1];
    }
    return joined == text_;
  };
  using jinja::Side;
  const bool is_found = fits([](const std::string& content) { return std::string_view(content); }) ||
                        fits([](const std::string& content) { return jinja::strip(content, Side::both); }) ||
                        fits([](const std::string& content) { return jinja::strip(content, Side::left); }) ||
                        fits([](const std::string& content) { return jinja::strip(content, Side::right); });
  if (!is_found) return std::nullopt;

  // 2. To the left up to the prompt's end, to the right with the token that ends the turn.
  const std::string lead = leader(gaps);
  std::string ending;
  bool is_ending_known = false;
  for (size_t k = 0; k < turns.size(); ++k) {
    if (gaps[k].ends_with(lead)) turns[k].begin -= lead.size();
    const std::string& behind = gaps[k + 1];
    if (!is_ending_known || !behind.starts_with(ending)) {
      // What follows when the chat stops here belongs to this turn alone.
      const std::string mark = mark_of(k);
      const std::optional<std::string> own =
          rendered(first_messages(marked_, turns_[k] + 1), AddGenerationPrompt::no);
      const size_t found = own ? own->find(mark) : std::string::npos;
      const std::string tail = found == std::string::npos ? behind : own->substr(found + mark.size());
      ending = tail.substr(0, turn_end(tail));
      is_ending_known = true;
    }
    if (behind.starts_with(ending)) turns[k].end += ending.size();
  }
  return turns;
}

std::optional<std::vector<TextSpan>> TurnFinder::by_prefixes() {
  if (messages_.size() > max_prefix_messages) return std::nullopt;
  std::vector<TextSpan> turns;
  for (const size_t i : turns_) {
    const std::optional<std::string> with_turn =
        rendered(first_messages(messages_, i + 1), AddGenerationPrompt::no);
    if (!with_turn || !text_.starts_with(*with_turn)) return std::nullopt;
    size_t begin = 0;
    if (i > 0) {
      const std::optional<std::string> prompt =
          rendered(first_messages(messages_, i), AddGenerationPrompt::yes);
      if (!prompt || !with_turn->starts_with(*prompt)) return std::nullopt;
      begin = prompt->size();
    } else {  // nothing precedes it, and templates write no prompt for nothing
      const std::optional<std::string> asking = generation_prompt(some_question());
      const size_t found = asking ? with_turn->find(*asking) : std::string::npos;
      if (found == std::string::npos) return std::nullopt;
      begin = found + asking->size();
    }
    turns.push_back({begin, begin + last_turn_end(std::string_view(*with_turn).substr(begin))});
  }
  return turns;
}

}  // namespace

std::string render_chat(const ChatSetting& setting, const Json& messages, const Json& variables,
                        std::string_view where) {
  try {
    return setting.chat_template.render(messages, AddGenerationPrompt::no, variables, setting.now);
  } catch (const Error& error) {
    fail(error.code(), "{}: the chat template refuses this chat: {}", where, error.what());
  }
}

RenderedChat render_with_turns(const ChatSetting& setting, const Json& messages, const Json& variables,
                               std::string_view where) {
  RenderedChat chat;
  chat.text = render_chat(setting, messages, variables, where);
  TurnFinder finder(setting, messages, variables, chat.text);
  std::optional<std::vector<TextSpan>> turns = finder.by_marks();
  if (!turns) turns = finder.by_prefixes();
  check(turns.has_value(), ExitCode::input,
        "{}: the chat template rewrites this chat, so the assistant's turns cannot be found in its text. "
        "Give such "
        "rows as prompt and completion, or set data.mask_prompt: false to supervise everything",
        where);
  chat.turns = std::move(*turns);
  return chat;
}

}  // namespace ptrain
