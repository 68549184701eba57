// The chat template of a model: the template language of Hugging Face tokenizers, as far as chats need it,
// and with limits, since templates are strangers' programs.
//   Has: if, for, set, macro, namespace, with, break, continue, generation, raw, comments, filters, tests,
//   methods, slices, white space control. Not: import, include, extends, call, recursive loops, * arguments.
//   Not for finding out which tokens are the assistant's: that is rows' work.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "src/io/json_fwd.h"

namespace ptrain {

/// Whether the template also writes what comes before an answer.
enum class AddGenerationPrompt { no, yes };

class ChatTemplate {
 public:
  /// `where` names the source in messages: "…/tokenizer_config.json: chat_template".
  /// Errors: ExitCode::input with `where`:line: not UTF-8, larger than 4 MiB, broken or unsupported syntax,
  /// nesting deeper than 100.
  static ChatTemplate parse(std::string_view source, std::string where);

  /// The text of a chat. `messages` is an array of objects; their keys with a null are left out, as the
  /// templates expect it. `extra_variables` is an object: bos_token, eos_token, tools, …; `tools` and
  /// `documents` are none where they are not given. strftime_now exists where a clock is given, so that a
  /// text does not depend on the day by accident.
  /// Errors: ExitCode::input, "<where>:<line>: <reason>"; for raise_exception(message) the reason is the
  /// message. Also past the limits: 20 million steps, 256 MiB of values, 64 MiB of text, 400 levels.
  /// Const and free of shared state: may be called from several threads.
  std::string render(const Json& messages, AddGenerationPrompt add_generation_prompt,
                     const Json& extra_variables, std::optional<std::tm> now = std::nullopt) const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct Tree;
  ChatTemplate(std::unique_ptr<const Tree> tree, std::string where);

  std::unique_ptr<const Tree> tree_;
  std::string where_;
};

}  // namespace ptrain
