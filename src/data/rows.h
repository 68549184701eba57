// A row of a .jsonl as a document: which shape it has, its tokens, and which of them are supervised.
// Not for reading files or packing; a row comes as parsed JSON with its file:line.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "src/data/document.h"
#include "src/data/model_text.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// The shapes of INTERFACE section 3, recognised by their keys.
enum class RowShape {
  text,               // {"text"}
  input,              // {"input"}: the same under another name
  prompt_completion,  // {"prompt", "completion"}
  instruction,        // {"instruction", "output"}, also with "input"
  messages,           // {"messages"}, also with "tools" for the template
  conversations,      // {"conversations"}
  ids,                // {"input_ids"}, also with "labels"
};

/// How a shape is shown to people: `{"prompt", "completion"}`.
std::string_view name_of(RowShape shape);

/// Whether a row of this shape is text that needs a tokenizer.
bool needs_tokenizer(RowShape shape);

/// Whether only answers are supervised, where the row says what is prompt, or everything.
enum class MaskPrompt { no, yes };

class RowEncoder {
 public:
  /// `tokenizer` may be null (rows of ids only) and is borrowed. Every id of a document is below
  /// `vocab_size`, the rows of the model's embedding. `now` is the clock that templates may ask; without one
  /// they see none, so that equal rows give equal tokens on any day. A broken chat template is an error only
  /// once a chat is encoded.
  RowEncoder(const Tokenizer* tokenizer, const ModelText& text, MaskPrompt mask_prompt, int64_t vocab_size,
             std::optional<std::tm> now = std::nullopt);
  ~RowEncoder();
  RowEncoder(const RowEncoder&) = delete;
  RowEncoder& operator=(const RowEncoder&) = delete;

  /// The row's shape. `where` is its file:line.
  /// Errors: ExitCode::input: no shape, or keys of two.
  RowShape shape_of(const Json& row, std::string_view where) const;

  /// The row's tokens and labels. Const and free of shared state: may be called from several threads.
  /// Errors: ExitCode::input with `where`: another shape than `shape`, wrong types, text that is not UTF-8,
  /// ids or labels outside of the vocabulary, lengths that differ, no tokenizer for text, a template that
  /// refuses the chat.
  Document encode(const Json& row, RowShape shape, std::string_view where) const;

  /// A number that differs where the tokens of a row of text may: tokenizer, template, EOS, mask, clock.
  uint64_t digest() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace ptrain
