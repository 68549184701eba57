// Turns a row of tokens back into text.
// Not for skipping special tokens or looking ids up; the tokenizer hands over the tokens that count.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/data/tokenizer/regex.h"
#include "src/io/json_fwd.h"

namespace ptrain {

class TokenDecoder {
 public:
  /// Reads a "decoder" of a tokenizer.json; null joins tokens with blanks.
  /// Errors: ExitCode::input naming `where`: kinds that are not supported (CTC).
  TokenDecoder(const Json& settings, const std::string& where);

  /// The text of tokens, valid UTF-8. Consumes `tokens`.
  std::string decode(std::vector<std::string>&& tokens, RegexScratch& scratch) const;

 private:
  /// Changes tokens in place; a list may become shorter or longer.
  using Step = std::function<void(std::vector<std::string>& tokens, RegexScratch&)>;

  void read(const Json& settings, const std::string& where);
  static Step step_of(const Json& settings, const std::string& type, const std::string& where);

  std::vector<Step> steps_;
  bool joins_with_blanks_ = false;
};

}  // namespace ptrain
