// The ids that a tokenizer puts around a text: BOS, EOS and the like.
// Not for ids inside it, and not for chat templates.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/io/json_fwd.h"

namespace ptrain {

struct PostProcessor {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

/// Reads a "post_processor" of a tokenizer.json; null adds nothing. Every id must be below `num_ids`.
/// Errors: ExitCode::input naming `where`: kinds that are not supported, ids without a token.
PostProcessor read_post_processor(const Json& settings, const std::string& where, int32_t num_ids);

}  // namespace ptrain
