// Makes a Hugging Face model directory of a GGUF file: weights, configuration, tokenizer, chat template.
#pragma once

#include <filesystem>

#include "kernels/base/dtype.h"

namespace ptrain {

struct ImportReport {
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;  // of weights written
};

/// Writes `directory` from the GGUF file `source`, weights as `dtype` (f32, bf16 or f16). Takes a few MB of
/// memory whatever the model's size. An older model in the directory is replaced; what is not whole is never
/// under the names of a model. Errors: ExitCode::input: see gguf.h, gguf_model.h and gguf_tokenizer.h;
/// ExitCode::resources.
ImportReport import_gguf(const std::filesystem::path& source, const std::filesystem::path& directory,
                         DType dtype);

}  // namespace ptrain
