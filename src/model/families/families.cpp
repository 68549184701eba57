#include "src/model/families/families.h"

#include <array>

namespace ptrain {

std::span<const Family> families() {
  static constexpr std::array table = {
      Family{"llama", "LlamaForCausalLM", read_llama},
      Family{"mistral", "MistralForCausalLM", read_mistral},
      Family{"qwen2", "Qwen2ForCausalLM", read_qwen2},
  };
  return table;
}

}  // namespace ptrain
