// The table of model families: one row and one file each.
#pragma once

#include <span>
#include <string_view>

#include "src/io/json_fwd.h"
#include "src/model/spec.h"

namespace ptrain {

struct Family {
  std::string_view model_type;    // of config.json
  std::string_view architecture;  // of config.json
  ModelSpec (*read)(const Json& config, std::string_view where);
};

std::span<const Family> families();

ModelSpec read_llama(const Json& config, std::string_view where);
ModelSpec read_mistral(const Json& config, std::string_view where);
ModelSpec read_qwen2(const Json& config, std::string_view where);

/// What Llama-like configurations share: sizes, norm, rope, tying.
ModelSpec read_llama_like(const Json& config, std::string_view where);

}  // namespace ptrain
