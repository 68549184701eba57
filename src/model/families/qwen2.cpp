// Qwen2: biases on q, k and v alone; a sliding window from a certain layer on, where it is switched on.
#include "src/io/json.h"
#include "src/model/families/families.h"

namespace ptrain {

ModelSpec read_qwen2(const Json& config, std::string_view where) {
  ModelSpec spec = read_llama_like(config, where);
  spec.has_qkv_bias = true;
  if (optional_or<bool>(config, "use_sliding_window", false, where)) {
    spec.window = optional_or<int64_t>(config, "sliding_window", 0, where);
    spec.first_window_layer = optional_or<int64_t>(config, "max_window_layers", spec.L, where);
  }
  return spec;
}

}  // namespace ptrain
