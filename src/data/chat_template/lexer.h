// A template's source as tokens, white space control already applied.
// Settings are those that chat templates are written for: the first line end after a block is dropped, and
// the blanks between a line's start and a block; one line end at the source's end is dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ptrain::jinja {

enum class TokenKind {
  data,  // text outside of tags
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,  // text: the value, escapes resolved
  integer,
  real,
  symbol,  // operators and brackets
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;
  int line = 1;
};

/// Errors: ExitCode::input with `where`:line for tags and strings that are not closed and characters that
/// mean nothing.
std::vector<Token> tokenize(std::string_view source, std::string_view where);

}  // namespace ptrain::jinja
