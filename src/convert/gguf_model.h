// What a GGUF file's metadata means as a Hugging Face model: config.json, and which tensor becomes which.
// Llama, Mistral and Qwen2. The tokenizer is gguf_tokenizer's.
#pragma once

#include <string>
#include <vector>

#include "src/convert/gguf.h"
#include "src/io/json.h"

namespace ptrain {

/// One tensor of the HF model and where it comes from.
struct ImportedTensor {
  std::string name;  // HF
  const GgufTensor* source = nullptr;
  // Rows of q and k of a Llama lie in the file as pairs for interleaved rotary: within each head of that many
  // rows, file row 2 j + s is HF row s * head_size / 2 + j. 0 = rows are as they should be.
  int64_t paired_head_size = 0;
};

struct ImportedModel {
  Json config;  // config.json without dtype and token ids
  std::vector<ImportedTensor> tensors;
};

/// Errors: ExitCode::input: an architecture, a feature or a tensor that is not supported, by name; a missing
/// tensor; a shape that contradicts the metadata.
ImportedModel read_gguf_model(const GgufFile& file);

}  // namespace ptrain
