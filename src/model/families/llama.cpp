// Llama (also SmolLM, TinyLlama, …).
#include "src/io/json.h"
#include "src/model/families/families.h"

namespace ptrain {

ModelSpec read_llama(const Json& config, std::string_view where) {
  ModelSpec spec = read_llama_like(config, where);
  spec.has_qkv_bias = spec.has_attention_out_bias = optional_or<bool>(config, "attention_bias", false, where);
  spec.has_mlp_bias = optional_or<bool>(config, "mlp_bias", false, where);
  return spec;
}

}  // namespace ptrain
