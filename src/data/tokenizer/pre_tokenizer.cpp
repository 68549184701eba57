// The steps of a pre-tokenizer. Each may rewrite the pieces, cut them, and rewrite what comes out.
#include "src/data/tokenizer/pre_tokenizer.h"

#include <functional>

#include "kernels/base/error.h"
#include "src/data/tokenizer/byte_level.h"
#include "src/data/tokenizer/normalizer.h"
#include "src/data/tokenizer/unicode.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// What becomes of the matches of a pattern.
enum class Behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

/// Appends the new text of a piece to `out`. `is_start`: the piece is the beginning of the user's text.
using Rewrite = std::function<void(std::string_view piece, bool is_start, std::string& out)>;

/// Appends the cuts of a piece, which together cover it.
using Cutter = std::function<void(std::string_view piece, RegexScratch&, std::vector<Cut>& out)>;

template <class Predicate>
Cutter each_that(Predicate is_match) {
  return [is_match](std::string_view piece, RegexScratch&, std::vector<Cut>& out) {
    size_t done = 0;
    for (size_t i = 0; i < piece.size();) {
      const CodePoint code = decode_utf8(piece.data() + i);
      const size_t end = i + code.size_bytes;
      if (is_match(code.value)) {
        if (done < i) out.push_back({done, i, false});
        out.push_back({i, end, true});
        done = end;
      }
      i = end;
    }
    if (done < piece.size()) out.push_back({done, piece.size(), false});
  };
}

Cutter by_pattern(TextPattern pattern, bool is_inverted) {
  return [pattern = std::move(pattern), is_inverted](std::string_view piece, RegexScratch& scratch,
                                                     std::vector<Cut>& out) {
    size_t done = 0;
    pattern.for_each(piece, scratch, [&](Match match) {
      if (done < match.begin) out.push_back({done, match.begin, is_inverted});
      out.push_back({match.begin, match.end, !is_inverted});
      done = match.end;
    });
    if (done < piece.size()) out.push_back({done, piece.size(), is_inverted});
  };
}

Cutter by_regex(std::string_view pattern, bool is_inverted, const std::string& where) {
  return by_pattern(TextPattern(Json{{"Regex", pattern}}, where), is_inverted);
}

/// Runs of word characters and runs of what is neither those nor white space.
Cutter words_and_signs() {
  const auto kind = [](uint32_t code) { return is_word(code) ? 2 : is_space(code) ? 0 : 1; };
  return [kind](std::string_view piece, RegexScratch&, std::vector<Cut>& out) {
    int last = -1;
    for (size_t i = 0; i < piece.size();) {
      const CodePoint code = decode_utf8(piece.data() + i);
      const int now = kind(code.value);
      if (now != last) out.push_back({i, i, now == 0});
      out.back().end = i += code.size_bytes;
      last = now;
    }
  };
}

Behavior read_behavior(const Json& settings, const std::string& where) {
  const auto name = optional_or<std::string>(settings, "behavior", "Isolated", where);
  if (name == "Isolated") return Behavior::isolated;
  if (name == "Removed") return Behavior::removed;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  fail(ExitCode::input, "{}: the behavior \"{}\" is not supported", where, name);
}

/// Turns the cuts of one piece, which begins at `offset`, into pieces.
void append_pieces(const std::vector<Cut>& cuts, Behavior behavior, size_t offset, std::vector<Match>& out) {
  const size_t first = out.size();
  const auto push = [&](const Cut& cut) { out.push_back({offset + cut.begin, offset + cut.end}); };
  bool was_match = false;
  switch (behavior) {
    case Behavior::isolated:
      for (const Cut& cut : cuts) push(cut);
      break;
    case Behavior::removed:
      for (const Cut& cut : cuts) {
        if (!cut.is_match) push(cut);
      }
      break;
    case Behavior::contiguous:
    case Behavior::merged_with_previous:
      for (const Cut& cut : cuts) {
        const bool is_joined =
            behavior == Behavior::contiguous ? cut.is_match == was_match : cut.is_match && !was_match;
        if (is_joined && out.size() > first) {
          out.back().end = offset + cut.end;
        } else {
          push(cut);
        }
        was_match = cut.is_match;
      }
      break;
    case Behavior::merged_with_next:
      for (size_t i = 0; i < cuts.size(); ++i) {  // a match joins what follows, unless that is a match too
        push(cuts[i]);
        if (cuts[i].is_match && i + 1 < cuts.size() && !cuts[i + 1].is_match)
          out.back().end = offset + cuts[++i].end;
      }
      break;
  }
  size_t kept = first;
  for (size_t i = first; i < out.size(); ++i) {
    if (out[i].begin < out[i].end) out[kept++] = out[i];
  }
  out.resize(kept);
}

}  // namespace

struct PreTokenizer::Step {
  Rewrite before;  // each may be empty
  Cutter cut;
  Behavior behavior = Behavior::isolated;
  Rewrite after;
};

namespace {

using Step = PreTokenizer::Step;

Step metaspace(const Json& settings, const std::string& where) {
  const auto sign = optional_or<std::string>(settings, "replacement", "\u2581", where);
  check(!sign.empty() && decode_utf8(sign.data()).size_bytes == sign.size(), ExitCode::input,
        "{}: \"replacement\" is \"{}\", expected one character", where, sign);
  auto scheme = optional_or<std::string>(settings, "prepend_scheme", "always", where);
  if (!optional_or<bool>(settings, "add_prefix_space", true, where)) scheme = "never";
  check(scheme == "always" || scheme == "first" || scheme == "never", ExitCode::input,
        "{}: \"prepend_scheme\" is \"{}\", expected always, first or never", where, scheme);
  Step step;
  step.before = [sign, scheme](std::string_view piece, bool is_start, std::string& out) {
    const bool has_sign = piece.starts_with(' ') || piece.starts_with(sign);
    if (!has_sign && (scheme == "always" || (scheme == "first" && is_start))) out += sign;
    for (char c : piece) {
      if (c == ' ') {
        out += sign;
      } else {
        out += c;
      }
    }
  };
  if (optional_or<bool>(settings, "split", true, where)) {
    const uint32_t code = decode_utf8(sign.data()).value;
    step.cut = each_that([code](uint32_t c) { return c == code; });
    step.behavior = Behavior::merged_with_next;
  }
  return step;
}

Step byte_level(const Json& settings, const std::string& where) {
  Step step;
  if (optional_or<bool>(settings, "add_prefix_space", true, where)) {
    step.before = [](std::string_view piece, bool, std::string& out) {
      if (!piece.starts_with(' ')) out += ' ';
      out += piece;
    };
  }
  if (optional_or<bool>(settings, "use_regex", true, where)) step.cut = by_regex(gpt2_pattern, false, where);
  step.after = [](std::string_view piece, bool, std::string& out) { append_byte_level(out, piece); };
  return step;
}

Step step_of(const Json& settings, const std::string& type, const std::string& where) {
  if (type == "ByteLevel") return byte_level(settings, where);
  if (type == "Metaspace") return metaspace(settings, where);
  Step step;
  if (type == "Split") {
    step.cut = by_pattern(TextPattern(member(settings, "pattern", where), where + ".pattern"),
                          optional_or<bool>(settings, "invert", false, where));
    step.behavior = read_behavior(settings, where);
  } else if (type == "Digits") {
    step.cut = each_that(is_numeric);
    const bool is_each = optional_or<bool>(settings, "individual_digits", false, where);
    step.behavior = is_each ? Behavior::isolated : Behavior::contiguous;
  } else if (type == "Punctuation") {
    step.cut = each_that(is_punctuation);
    step.behavior = read_behavior(settings, where);
  } else if (type == "Whitespace") {
    step.cut = words_and_signs();
    step.behavior = Behavior::removed;
  } else if (type == "WhitespaceSplit") {
    step.cut = each_that(is_space);
    step.behavior = Behavior::removed;
  } else if (type == "CharDelimiterSplit") {
    const auto delimiter = required<std::string>(settings, "delimiter", where);
    check(!delimiter.empty() && decode_utf8(delimiter.data()).size_bytes == delimiter.size(), ExitCode::input,
          "{}: \"delimiter\" is \"{}\", expected one character", where, delimiter);
    const uint32_t code = decode_utf8(delimiter.data()).value;
    step.cut = each_that([code](uint32_t c) { return c == code; });
    step.behavior = Behavior::removed;
  } else {
    fail(ExitCode::input,
         "{}: the pre-tokenizer \"{}\" is not supported (supported: ByteLevel, Split, Digits, Metaspace, "
         "Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit, Sequence)",
         where, type);
  }
  return step;
}

/// The members of nested sequences, one after the other, with where each stands.
void flatten(const Json& settings, const std::string& where, std::vector<Json>& out,
             std::vector<std::string>& places) {
  check(settings.is_object(), ExitCode::input, "{}: is {}, expected an object", where, kind_of(settings));
  if (required<std::string>(settings, "type", where) != "Sequence") {
    out.push_back(settings);
    places.push_back(where);
    return;
  }
  const Json& members = member(settings, "pretokenizers", where);
  check(members.is_array(), ExitCode::input, "{}: \"pretokenizers\" is {}, expected an array", where,
        kind_of(members));
  for (size_t i = 0; i < members.size(); ++i) {
    flatten(members[i], fmt::format("{}.pretokenizers[{}]", where, i), out, places);
  }
}

bool is_byte_level(const Json& settings, bool use_regex) {
  return required<std::string>(settings, "type", "") == "ByteLevel" &&
         !optional_or<bool>(settings, "add_prefix_space", true, "") &&
         optional_or<bool>(settings, "use_regex", true, "") == use_regex;
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& settings, const std::string& where, bool may_keep_bytes,
                           Shortcuts shortcuts) {
  if (settings.is_null()) return;
  std::vector<Json> flat;
  std::vector<std::string> places;
  flatten(settings, where, flat, places);
  for (size_t i = 0; i < flat.size(); ++i) {
    steps_.push_back(step_of(flat[i], required<std::string>(flat[i], "type", places[i]), places[i]));
  }
  if (!may_keep_bytes || flat.empty() || flat.back().at("type") != "ByteLevel") return;
  steps_.back().after = nullptr;  // what would only spell the bytes
  alphabet_ = Alphabet::bytes;
  if (shortcuts == Shortcuts::use) known_ = recognize(flat);
  if (known_ != Known::none) classes_ = std::make_unique<const CharacterClasses>();
}

PreTokenizer::~PreTokenizer() = default;

PreTokenizer::Known PreTokenizer::recognize(const std::vector<Json>& flat) {
  if (flat.size() == 1) return is_byte_level(flat[0], true) ? Known::gpt2 : Known::none;
  if (flat.size() != 2) return Known::none;
  const auto type = required<std::string>(flat[0], "type", "");
  if (type == "Digits" && optional_or<bool>(flat[0], "individual_digits", false, "") &&
      is_byte_level(flat[1], true)) {
    return Known::digits_gpt2;
  }
  const bool is_plain_split = type == "Split" && read_behavior(flat[0], "") == Behavior::isolated &&
                              !optional_or<bool>(flat[0], "invert", false, "") &&
                              flat[0]["pattern"].contains("Regex");
  if (!is_plain_split || !is_byte_level(flat[1], false)) return Known::none;
  const std::string pattern = flat[0]["pattern"]["Regex"];
  if (pattern == gpt2_pattern) return Known::gpt2;
  if (pattern == llama3_pattern) return Known::llama3;
  if (pattern == qwen2_pattern) return Known::qwen2;
  return Known::none;
}

std::string_view PreTokenizer::run_steps(std::string_view text, bool is_start,
                                         PreTokenizerScratch& scratch) const {
  auto& [current, next, pieces, next_pieces, cuts, regex] = scratch;
  std::string_view source = text;
  pieces.assign(text.empty() ? 0 : 1, Match{0, text.size()});
  const auto rewrite = [&](const Rewrite& how) {
    next.clear();
    for (size_t i = 0; i < pieces.size(); ++i) {
      const size_t begin = next.size();
      how(source.substr(pieces[i].begin, pieces[i].end - pieces[i].begin), is_start && i == 0, next);
      pieces[i] = {begin, next.size()};
    }
    current.swap(next);
    source = current;
  };
  for (const Step& step : steps_) {
    if (step.before) rewrite(step.before);
    if (step.cut && !pieces.empty()) {
      const size_t first = pieces[0].begin;
      next_pieces.clear();
      for (const Match& piece : pieces) {
        cuts.clear();
        step.cut(source.substr(piece.begin, piece.end - piece.begin), regex, cuts);
        append_pieces(cuts, step.behavior, piece.begin, next_pieces);
      }
      pieces.swap(next_pieces);
      is_start = is_start && !pieces.empty() && pieces[0].begin == first;
    }
    if (step.after) rewrite(step.after);
  }
  return source;
}

}  // namespace ptrain
