// What is done to text before it is cut: normal forms, replacements, stripping.
// Not for the byte-level spelling of pre-tokenizers, nor for decoding.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/regex.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// A "pattern" of a Replace or a Split: {"String": …} is looked for as it stands, {"Regex": …} is compiled.
struct TextPattern {
  std::string literal;  // looked for if there is no regex
  std::shared_ptr<const Regex> regex;

  /// Errors: ExitCode::input, naming `where`: another shape, an empty pattern, a broken regex.
  TextPattern(const Json& settings, const std::string& where);

  /// Calls visit(Match) for each match, from left to right.
  template <class Visit>
  void for_each(std::string_view text, RegexScratch& scratch, Visit&& visit) const {
    if (regex) {
      for_each_match(*regex, text, scratch, visit);
      return;
    }
    for (size_t at = text.find(literal); at != std::string_view::npos;
         at = text.find(literal, at + literal.size())) {
      visit(Match{at, at + literal.size()});
    }
  }
};

/// `text` with each match replaced, appended to `out`.
void append_replaced(const TextPattern& pattern, std::string_view content, std::string_view text,
                     RegexScratch& scratch, std::string& out);

struct NormalizerScratch {
  std::string current;
  std::string next;
  RegexScratch regex;
};

class Normalizer {
 public:
  /// Reads a "normalizer" of a tokenizer.json; null does nothing.
  /// Errors: ExitCode::input naming `where`: kinds that are not supported (Precompiled, BertNormalizer).
  Normalizer(const Json& settings, const std::string& where);
  ~Normalizer();
  Normalizer(Normalizer&&) noexcept;

  /// The normalised text: `text` itself where nothing changes, else a view into the scratch that holds until
  /// its next use.
  std::string_view apply(std::string_view text, NormalizerScratch& scratch) const;

  struct Step;

 private:
  void read(const Json& settings, const std::string& where);
  std::vector<Step> steps_;
};

}  // namespace ptrain
