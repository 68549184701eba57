// The tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json: byte-level BPE ("gpt2") and
// SentencePiece-style BPE ("llama"). Encoding text with it is src/data's.
#pragma once

#include <optional>

#include "src/convert/gguf.h"
#include "src/io/json.h"

namespace ptrain {

struct ImportedTokenizer {
  Json tokenizer;  // tokenizer.json; null where the file holds no tokenizer
  Json settings;   // tokenizer_config.json, with the chat template
  std::optional<int64_t> bos_id, eos_id, pad_id;
  int64_t size = 0;  // tokens
};

/// Errors: ExitCode::input: a kind of tokenizer or of pre-tokenizer that is not supported, by name; lists of
/// unequal lengths; tokens that appear twice; merges of unknown tokens; ids outside the vocabulary.
ImportedTokenizer read_gguf_tokenizer(const GgufFile& file);

}  // namespace ptrain
