// What a tokenizer's file holds, read but not yet understood: the large tables apart, the rest as JSON.
// Not for what the settings mean; normalizer, pre_tokenizer, bpe and the others read those.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer/vocabulary.h"
#include "src/io/json.h"

namespace ptrain {

/// "left" + "right" may become one token; lower ranks first.
struct MergeEntry {
  std::string left;
  std::string right;
  uint32_t rank;
};

/// A file may have this many merges; the largest vocabularies have half a million.
constexpr size_t max_merges = size_t{1} << 22;

/// A tokenizer.json, or a tokenizer.model told in its words.
struct TokenizerFile {
  std::string where;                   // path, for messages
  Json settings;                       // the file without model.vocab and model.merges
  std::vector<VocabularyEntry> vocab;  // model.vocab in file order
  std::vector<MergeEntry> merges;      // model.merges in file order
  uint64_t digest = 0;                 // of the bytes read
};

/// Parses a tokenizer.json. Strict: duplicate names, depth, wrong kinds in the tables.
/// Errors: ExitCode::input with `where` and the key.
TokenizerFile parse_tokenizer_json(std::string_view text, std::string_view where);

/// Reads model_dir/tokenizer.json, else tokenizer.model.
/// Errors: ExitCode::input: both are missing, or what the readers refuse.
TokenizerFile read_tokenizer_file(const std::filesystem::path& model_dir);

/// Adds special tokens. One that the file has keeps its id; the others get the ids after the largest.
/// Errors: ExitCode::input: an empty token, a broken "added_tokens".
void add_special_tokens(TokenizerFile& file, std::span<const std::string> tokens);

/// The text of a tokenizer.json that says the same. Merges of equal rank are written one after the other.
std::string to_json_text(const TokenizerFile& file);

}  // namespace ptrain
