// Mistral: Llama with a sliding window in every layer.
#include "src/io/json.h"
#include "src/model/families/families.h"

namespace ptrain {

ModelSpec read_mistral(const Json& config, std::string_view where) {
  ModelSpec spec = read_llama_like(config, where);
  spec.window = optional_or<int64_t>(config, "sliding_window", 0, where);
  return spec;
}

}  // namespace ptrain
