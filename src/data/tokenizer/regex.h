// The door to PCRE2: patterns as tokenizer files write them (Oniguruma's syntax), over valid UTF-8.
// Not for the hot patterns of common tokenizers, which splitter.h finds by hand.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ptrain {

/// Where a match begins and ends, in bytes.
struct Match {
  size_t begin;
  size_t end;
};

/// What one thread needs while it matches; any Regex may use it, one at a time.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// A compiled pattern. Immutable: several threads may match with it, each with its own scratch.
class Regex {
 public:
  /// `pattern` in Oniguruma's Ruby syntax, see onig_pattern.h.
  /// Errors: ExitCode::input naming `where`, the pattern, the place in it, and what is wrong.
  Regex(std::string_view pattern, std::string_view where);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// The first match that begins at `from` or later. `text` must be valid UTF-8.
  /// Errors: ExitCode::input where the match limits are hit: the pattern is too costly on this text.
  std::optional<Match> find(std::string_view text, size_t from, RegexScratch& scratch) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// All matches from left to right; an empty match directly after another match is left out.
/// `visit(Match)` is called for each.
template <class Visit>
void for_each_match(const Regex& regex, std::string_view text, RegexScratch& scratch, Visit&& visit) {
  size_t from = 0;
  std::optional<size_t> last_end;
  while (from <= text.size()) {
    const std::optional<Match> match = regex.find(text, from, scratch);
    if (!match) return;
    if (match->begin == match->end && last_end == match->end) {
      ++from;  // past one character
      while (from < text.size() && (text[from] & 0xC0) == 0x80) ++from;
      continue;
    }
    from = match->end;
    last_end = match->end;
    visit(*match);
  }
}

}  // namespace ptrain
