// Reads a SentencePiece tokenizer.model of the BPE kind and tells it in the words of a tokenizer.json.
// Not for Unigram models, nor for models with a character map or other text clean-up: refused by name.
#pragma once

#include <filesystem>
#include <string_view>

#include "src/data/tokenizer/file.h"

namespace ptrain {

/// `bos`, `eos`: whether encode() with Special::add puts them around a text.
struct SentencePieceOptions {
  bool adds_bos = true;
  bool adds_eos = false;
};

/// The tokenizer of a serialised ModelProto. `where` names it in messages.
/// Errors: ExitCode::input: not such a file, or a kind that is not supported.
TokenizerFile parse_sentencepiece(std::string_view bytes, std::string_view where,
                                  SentencePieceOptions options);

/// The same from a file, with add_bos_token and add_eos_token of the tokenizer_config.json beside it.
TokenizerFile read_sentencepiece(const std::filesystem::path& path);

}  // namespace ptrain
