// A chat as text, with the parts of it that the assistant has to learn: each of its turns with the token that
// ends it. Works for any template, since it only compares renderings; knows no template by name.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/model_text.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// Bytes [begin, end) of a text.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
};

struct RenderedChat {
  std::string text;
  std::vector<TextSpan> turns;  // the assistant's, in order, disjoint
};

/// What rendering needs beside the messages. Borrows all of it.
struct ChatSetting {
  const ChatTemplate& chat_template;
  const ModelText& model;
  const Tokenizer& tokenizer;
  std::optional<std::tm> now;
};

/// The chat's text alone. `variables` is what the template sees beside the messages.
/// Errors, here and below: ExitCode::input beginning with `where`, the row.
std::string render_chat(const ChatSetting& setting, const Json& messages, const Json& variables,
                        std::string_view where);

/// The text and the assistant's turns in it.
///
/// The chat is rendered a second time with marks in the place of the assistant's contents: what stands
/// between the marks is the template's, what replaces them is the assistant's, and both together must give
/// the first rendering (contents as they are, or stripped of white space). A turn begins where a prompt for
/// it ends and goes up to its end-of-turn token, the special token that follows the content when the chat
/// stops there. Turns without a plain text (tool calls), and templates that rewrite contents, are found by
/// prefixes instead: from the rendering of what precedes the turn with the generation prompt, to that with
/// the turn.
///
/// Errors: also where neither way holds.
RenderedChat render_with_turns(const ChatSetting& setting, const Json& messages, const Json& variables,
                               std::string_view where);

}  // namespace ptrain
