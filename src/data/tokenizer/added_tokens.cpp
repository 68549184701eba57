// The added tokens of a file and a trie over the bytes of their patterns.
#include "src/data/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "kernels/base/error.h"
#include "src/data/tokenizer/unicode.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr size_t max_pattern_bytes = 4096;  // keeps the search linear in the text
constexpr size_t max_added_tokens = size_t{1} << 20;
constexpr size_t max_all_pattern_bytes = size_t{4} << 20;  // each may become a node of the trie

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text.data() + previous_utf8(text, text.size())).value);
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text.data()).value);
}

size_t leading_space_bytes(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const CodePoint code = decode_utf8(text.data() + i);
    if (!is_space(code.value)) break;
    i += code.size_bytes;
  }
  return i;
}

/// Where the white space at the end of text begins.
size_t trailing_space_begin(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t i = previous_utf8(text, end);
    if (!is_space(decode_utf8(text.data() + i).value)) break;
    end = i;
  }
  return end;
}

AddedToken read_added_token(const Json& entry, const std::string& where, const Vocabulary& vocabulary) {
  check(entry.is_object(), ExitCode::input, "{}: is {}, expected an object", where, kind_of(entry));
  AddedToken token;
  token.content = required<std::string>(entry, "content", where);
  const auto id = required<int64_t>(entry, "id", where);
  check(id >= 0 && id < max_token_ids, ExitCode::input, "{}: \"id\" is {}, expected 0 to {}", where, id,
        max_token_ids - 1);
  token.id = static_cast<int32_t>(id);
  check(token.content.size() <= max_pattern_bytes, ExitCode::input,
        "{}: \"content\" has {} bytes, more than the {} that are accepted", where, token.content.size(),
        max_pattern_bytes);
  const int32_t known = vocabulary.find(token.content);
  check(known < 0 || known == token.id, ExitCode::input, "{}: \"{}\" has id {} here and id {} in model.vocab",
        where, token.content, token.id, known);
  const std::string_view other = vocabulary.token(token.id);
  check(other.data() == nullptr || other == token.content, ExitCode::input,
        "{}: \"{}\" has id {}, which belongs to \"{}\" in model.vocab", where, token.content, token.id,
        other);
  token.is_single_word = optional_or<bool>(entry, "single_word", false, where);
  token.strips_left = optional_or<bool>(entry, "lstrip", false, where);
  token.strips_right = optional_or<bool>(entry, "rstrip", false, where);
  token.is_special = optional_or<bool>(entry, "special", false, where);
  token.is_normalized = optional_or<bool>(entry, "normalized", !token.is_special, where);
  return token;
}

std::vector<AddedToken> read_added_tokens(const TokenizerFile& file, const Vocabulary& vocabulary,
                                          const Normalizer& normalizer) {
  std::vector<AddedToken> tokens;
  const auto found = file.settings.find("added_tokens");
  if (found == file.settings.end() || found->is_null()) return tokens;
  check(found->is_array() && found->size() <= max_added_tokens, ExitCode::input,
        "{}: \"added_tokens\" is {} of {} entries, expected an array of at most {}", file.where,
        kind_of(*found), found->size(), max_added_tokens);
  std::unordered_map<std::string, size_t> by_content;
  std::unordered_map<int32_t, size_t> by_id;
  size_t all_bytes = 0;
  for (size_t i = 0; i < found->size(); ++i) {
    AddedToken token =
        read_added_token((*found)[i], fmt::format("{}: added_tokens[{}]", file.where, i), vocabulary);
    if (token.content.empty()) continue;  // matches nothing
    const bool is_new = by_content.emplace(token.content, i).second && by_id.emplace(token.id, i).second;
    check(is_new, ExitCode::input, "{}: added_tokens[{}]: \"{}\" or its id {} is there already", file.where,
          i, token.content, token.id);
    token.pattern = token.content;
    if (token.is_normalized) {
      NormalizerScratch space;
      token.pattern = normalizer.apply(token.content, space);
    }
    all_bytes += token.pattern.size();
    check(all_bytes <= max_all_pattern_bytes, ExitCode::input,
          "{}: the contents of \"added_tokens\" have more than {} bytes", file.where, max_all_pattern_bytes);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<const AddedToken*> select(const std::vector<AddedToken>& tokens, bool is_normalized) {
  std::vector<const AddedToken*> selected;
  for (const AddedToken& token : tokens) {
    if (token.is_normalized == is_normalized && !token.pattern.empty()) selected.push_back(&token);
  }
  return selected;
}

}  // namespace

PatternSet::PatternSet(std::vector<const AddedToken*> tokens) : tokens_(std::move(tokens)), nodes_(1) {
  for (const AddedToken* token : tokens_) {
    begins_[static_cast<unsigned char>(token->pattern[0])] = true;
    uint32_t node = 0;
    for (char c : token->pattern) {
      auto& children = nodes_[node].children;
      auto place = std::lower_bound(children.begin(), children.end(), c,
                                    [](const auto& child, char byte) { return child.first < byte; });
      if (place == children.end() || place->first != c) {
        place = children.insert(place, {c, static_cast<uint32_t>(nodes_.size())});
        node = place->second;
        nodes_.emplace_back();
      } else {
        node = place->second;
      }
    }
    if (nodes_[node].token == nullptr) nodes_[node].token = token;  // of equal patterns the first counts
  }
  if (std::count(begins_.begin(), begins_.end(), true) == 1) {
    only_first_byte_ = static_cast<int>(std::find(begins_.begin(), begins_.end(), true) - begins_.begin());
  }
}

const AddedToken* PatternSet::longest_at(std::string_view text, size_t at) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (; at < text.size(); ++at) {
    const auto& children = nodes_[node].children;
    const auto place = std::lower_bound(children.begin(), children.end(), text[at],
                                        [](const auto& child, char byte) { return child.first < byte; });
    if (place == children.end() || place->first != text[at]) break;
    node = place->second;
    if (nodes_[node].token) longest = nodes_[node].token;
  }
  return longest;
}

size_t PatternSet::next_candidate(std::string_view text, size_t at) const {
  if (at >= text.size()) return text.size();
  if (only_first_byte_ >= 0) {
    const void* found = std::memchr(text.data() + at, only_first_byte_, text.size() - at);
    return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : text.size();
  }
  while (at < text.size() && !begins_[static_cast<unsigned char>(text[at])]) ++at;
  return at;
}

void PatternSet::split(std::string_view text, std::vector<Segment>& out) const {
  size_t done = 0;  // everything before is in a segment
  size_t at = is_empty() ? text.size() : 0;
  while ((at = next_candidate(text, at)) < text.size()) {
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->pattern.size();
    at = end;  // a match that is then discarded is passed over all the same
    if (token->is_single_word &&
        (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) {
      continue;
    }
    // White space that a token before has swallowed is not swallowed twice.
    if (token->strips_left) begin = std::max(done, trailing_space_begin(text.substr(0, begin)));
    if (token->strips_right) end += leading_space_bytes(text.substr(end));
    if (done < begin) out.push_back({text.substr(done, begin - done), -1});
    out.push_back({text.substr(begin, end - begin), token->id});
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done), -1});
}

AddedTokens::AddedTokens(const TokenizerFile& file, const Vocabulary& vocabulary,
                         const Normalizer& normalizer)
    : tokens_(read_added_tokens(file, vocabulary, normalizer)),
      raw_(select(tokens_, false)),
      normalized_(select(tokens_, true)) {}

}  // namespace ptrain
