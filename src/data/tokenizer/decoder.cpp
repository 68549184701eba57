// Each kind of decoder is a small change to the list of tokens; what is left at the end is joined.
#include "src/data/tokenizer/decoder.h"

#include <array>
#include <memory>
#include <utility>

#include "kernels/base/error.h"
#include "src/data/tokenizer/byte_level.h"
#include "src/data/tokenizer/normalizer.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

using Tokens = std::vector<std::string>;

void decode_byte_level(Tokens& tokens, RegexScratch&) {
  std::string bytes;
  for (const std::string& token : tokens) {
    if (!append_bytes(bytes, token)) bytes += token;  // an added token that is no byte-level spelling
  }
  tokens.assign(1, is_valid_utf8(bytes) ? std::move(bytes) : to_valid_utf8(bytes));
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// The byte of "<0xNN>", or -1.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_value(token[3]);
  const int low = hex_value(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/// Runs of byte tokens become their text, or one U+FFFD for each byte where a run is not UTF-8.
void decode_byte_fallback(Tokens& tokens, RegexScratch&) {
  Tokens out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (is_valid_utf8(run)) {
      out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), std::string(replacement_character));
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = byte_of(token); byte >= 0) {
      run += static_cast<char>(byte);
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void fuse(Tokens& tokens, RegexScratch&) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  tokens.assign(1, std::move(all));
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

/// The blanks that WordPiece leaves before punctuation and in English contractions.
void clean_up(std::string& text) {
  static constexpr auto table = std::to_array<std::pair<std::string_view, std::string_view>>({
      {" .", "."},
      {" ?", "?"},
      {" !", "!"},
      {" ,", ","},
      {" ' ", "'"},
      {" n't", "n't"},
      {" 'm", "'m"},
      {" do not", " don't"},
      {" 's", "'s"},
      {" 've", "'ve"},
      {" 're", "'re"},
  });
  for (const auto& [from, to] : table) replace_all(text, from, to);
}

/// Takes up to `start` and `stop` characters equal to `content` off the ends.
void strip_ends(std::string& token, std::string_view content, int64_t start, int64_t stop) {
  std::string_view left = token;
  for (int64_t i = 0; i < start && left.starts_with(content); ++i) left.remove_prefix(content.size());
  for (int64_t i = 0; i < stop && left.ends_with(content); ++i) left.remove_suffix(content.size());
  token = std::string(left);
}

}  // namespace

TokenDecoder::Step TokenDecoder::step_of(const Json& settings, const std::string& type,
                                         const std::string& where) {
  if (type == "ByteLevel") return decode_byte_level;
  if (type == "ByteFallback") return decode_byte_fallback;
  if (type == "Fuse") return fuse;
  if (type == "Strip") {
    const auto content = required<std::string>(settings, "content", where);
    check(!content.empty(), ExitCode::input, "{}: \"content\" is empty, expected one character", where);
    const auto start = required<int64_t>(settings, "start", where);
    const auto stop = required<int64_t>(settings, "stop", where);
    return [=](Tokens& tokens, RegexScratch&) {
      for (std::string& token : tokens) strip_ends(token, content, start, stop);
    };
  }
  if (type == "Replace") {
    const TextPattern pattern(member(settings, "pattern", where), where + ".pattern");
    const auto content = required<std::string>(settings, "content", where);
    return [=](Tokens& tokens, RegexScratch& scratch) {
      for (std::string& token : tokens) {
        std::string replaced;
        append_replaced(pattern, content, token, scratch, replaced);
        token = std::move(replaced);
      }
    };
  }
  if (type == "Metaspace") {
    const auto sign = optional_or<std::string>(settings, "replacement", "\u2581", where);
    const bool has_prefix =
        optional_or<std::string>(settings, "prepend_scheme", "always", where) != "never" &&
        optional_or<bool>(settings, "add_prefix_space", true, where);
    return [=](Tokens& tokens, RegexScratch&) {
      for (size_t i = 0; i < tokens.size(); ++i)
        replace_all(tokens[i], sign, i == 0 && has_prefix ? "" : " ");
    };
  }
  if (type == "BPEDecoder") {
    const auto suffix = optional_or<std::string>(settings, "suffix", "</w>", where);
    return [=](Tokens& tokens, RegexScratch&) {
      for (size_t i = 0; i < tokens.size(); ++i)
        replace_all(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
    };
  }
  if (type == "WordPiece") {
    const auto prefix = optional_or<std::string>(settings, "prefix", "##", where);
    const bool is_cleaned = optional_or<bool>(settings, "cleanup", true, where);
    return [=](Tokens& tokens, RegexScratch&) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (i > 0)
          tokens[i] = tokens[i].starts_with(prefix) ? tokens[i].substr(prefix.size()) : " " + tokens[i];
        if (is_cleaned) clean_up(tokens[i]);
      }
    };
  }
  fail(ExitCode::input,
       "{}: the decoder \"{}\" is not supported (supported: ByteLevel, ByteFallback, Fuse, Strip, Replace, "
       "Metaspace, BPEDecoder, WordPiece, Sequence)",
       where, type);
}

TokenDecoder::TokenDecoder(const Json& settings, const std::string& where)
    : joins_with_blanks_(settings.is_null()) {
  if (!settings.is_null()) read(settings, where);
}

void TokenDecoder::read(const Json& settings, const std::string& where) {
  check(settings.is_object(), ExitCode::input, "{}: is {}, expected an object", where, kind_of(settings));
  const auto type = required<std::string>(settings, "type", where);
  if (type != "Sequence") {
    steps_.push_back(step_of(settings, type, where));
    return;
  }
  const Json& members = member(settings, "decoders", where);
  check(members.is_array(), ExitCode::input, "{}: \"decoders\" is {}, expected an array", where,
        kind_of(members));
  for (size_t i = 0; i < members.size(); ++i) read(members[i], fmt::format("{}.decoders[{}]", where, i));
}

std::string TokenDecoder::decode(std::vector<std::string>&& tokens, RegexScratch& scratch) const {
  for (const Step& step : steps_) step(tokens, scratch);
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (joins_with_blanks_ && i > 0) text += ' ';
    text += tokens[i];
  }
  return text;
}

}  // namespace ptrain
