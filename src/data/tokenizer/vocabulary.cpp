// The vocabulary's two tables. Everything is checked while they are built; look-ups never fail.
#include "src/data/tokenizer/vocabulary.h"

#include <algorithm>
#include <bit>

#include "kernels/base/error.h"
#include "src/data/tokenizer/hash.h"

namespace ptrain {

Vocabulary::Vocabulary(const std::vector<VocabularyEntry>& entries, std::string_view where) {
  size_t num_bytes = 0;
  int64_t num_ids = 0;
  for (const VocabularyEntry& entry : entries) {
    check(entry.id >= 0 && entry.id < max_token_ids, ExitCode::input,
          "{}: token \"{}\" has id {}, expected 0 to {}", where, entry.token, entry.id, max_token_ids - 1);
    num_ids = std::max(num_ids, int64_t{entry.id} + 1);
    num_bytes += entry.token.size();
  }
  bytes_.reserve(num_bytes);
  tokens_.resize(static_cast<size_t>(num_ids));
  slots_.resize(std::bit_ceil(std::max<size_t>(16, 2 * entries.size())));
  for (const VocabularyEntry& entry : entries) {
    Text& text = tokens_[static_cast<size_t>(entry.id)];
    check(text.size_bytes < 0, ExitCode::input, "{}: id {} belongs to \"{}\" and to \"{}\"", where, entry.id,
          token(entry.id), entry.token);
    check(find(entry.token) < 0, ExitCode::input, "{}: token \"{}\" has the ids {} and {}", where,
          entry.token, find(entry.token), entry.id);
    text = {static_cast<uint32_t>(bytes_.size()), static_cast<int32_t>(entry.token.size())};
    bytes_ += entry.token;
    const uint64_t hash = hash_bytes(entry.token);
    size_t i = hash & (slots_.size() - 1);
    while (slots_[i].id >= 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {static_cast<uint32_t>(hash >> 32), entry.id};
  }
}

int32_t Vocabulary::find(std::string_view token) const {
  const uint64_t hash = hash_bytes(token);
  for (size_t i = hash & (slots_.size() - 1); slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].hash == static_cast<uint32_t>(hash >> 32) && this->token(slots_[i].id) == token) {
      return slots_[i].id;
    }
  }
  return -1;
}

std::string_view Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const Text& text = tokens_[static_cast<size_t>(id)];
  if (text.size_bytes < 0) return {};
  return {bytes_.data() + text.begin, static_cast<size_t>(text.size_bytes)};
}

}  // namespace ptrain
