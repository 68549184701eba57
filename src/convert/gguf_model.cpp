#include "src/convert/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "kernels/base/error.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr int64_t max_layers = 10'000;
constexpr int64_t max_width = int64_t{1} << 30;

/// The numbers that shapes follow from.
struct Sizes {
  int64_t layers;
  int64_t hidden;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;
  int64_t ffn;
  int64_t vocabulary;
};

/// Reads keys below the architecture's own prefix.
class Keys {
 public:
  explicit Keys(const GgufFile& file)
      : file_(file), architecture_(file.required<std::string>("general.architecture")) {}

  const std::string& architecture() const { return architecture_; }
  std::string key(std::string_view name) const { return fmt::format("{}.{}", architecture_, name); }
  int64_t count(std::string_view name, int64_t limit) const {
    const auto value = file_.required<int64_t>(key(name));
    check(value >= 1 && value <= limit, ExitCode::input, "{}: {} is {}, expected 1 to {}",
          file_.path().string(), key(name), value, limit);
    return value;
  }
  std::optional<int64_t> integer(std::string_view name) const { return file_.get<int64_t>(key(name)); }
  std::optional<double> number(std::string_view name) const { return file_.get<double>(key(name)); }
  std::optional<std::string> text(std::string_view name) const { return file_.get<std::string>(key(name)); }

 private:
  const GgufFile& file_;
  std::string architecture_;
};

Sizes read_sizes(const GgufFile& file, const Keys& keys) {
  const std::string where = file.path().string();
  Sizes sizes{};
  sizes.layers = keys.count("block_count", max_layers);
  sizes.hidden = keys.count("embedding_length", max_width);
  sizes.heads = keys.count("attention.head_count", max_width);
  sizes.kv_heads = keys.integer("attention.head_count_kv")
                       ? keys.count("attention.head_count_kv", sizes.heads)
                       : sizes.heads;
  sizes.ffn = keys.count("feed_forward_length", max_width);
  check(sizes.heads % sizes.kv_heads == 0, ExitCode::input,
        "{}: {} heads are no multiple of {} key-value heads", where, sizes.heads, sizes.kv_heads);
  if (keys.integer("attention.key_length")) {
    sizes.head_size = keys.count("attention.key_length", max_width);
  } else {
    check(sizes.hidden % sizes.heads == 0, ExitCode::input, "{}: the width {} is no multiple of {} heads",
          where, sizes.hidden, sizes.heads);
    sizes.head_size = sizes.hidden / sizes.heads;
  }
  const int64_t rotary = keys.integer("rope.dimension_count").value_or(sizes.head_size);
  check(rotary == sizes.head_size && sizes.head_size % 2 == 0, ExitCode::input,
        "{}: rotary embedding over {} of {} dimensions of a head is not supported", where, rotary,
        sizes.head_size);
  check(keys.integer("attention.value_length").value_or(sizes.head_size) == sizes.head_size, ExitCode::input,
        "{}: heads of another size for values than for keys are not supported", where);
  check(keys.integer("expert_count").value_or(0) == 0, ExitCode::input,
        "{}: is a mixture of experts, which is not supported", where);
  const GgufTensor* embedding = file.find("token_embd.weight");
  check(embedding != nullptr, ExitCode::input, "{}: the tensor token_embd.weight is missing", where);
  sizes.vocabulary = embedding->shape[0];
  return sizes;
}

/// Checks a tensor's shape and notes which HF tensor it becomes.
class Table {
 public:
  explicit Table(const GgufFile& file) : file_(file) {}

  bool has(const std::string& source) const { return file_.find(source) != nullptr; }

  void add(std::string name, const std::string& source, const Shape& shape, int64_t paired_head_size = 0) {
    const std::string where = file_.path().string();
    const GgufTensor* tensor = file_.find(source);
    check(tensor != nullptr, ExitCode::input, "{}: the tensor {} is missing", where, source);
    check(tensor->shape == shape, ExitCode::input,
          "{}: the tensor {} has the shape {}, but the metadata asks for {}", where, source,
          to_string(tensor->shape), to_string(shape));
    check(
        tensor->type->is_readable, ExitCode::input,
        "{}: the tensor {} is packed as {}, which is not supported: F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are. "
        "Take a file of the same model in one of these",
        where, source, tensor->type->name);
    used_.insert(source);
    tensors_.push_back({std::move(name), tensor, paired_head_size});
  }
  /// A tensor that becomes a part of config.json.
  void mark_used(const std::string& source) { used_.insert(source); }

  std::vector<ImportedTensor> finish() {
    for (const GgufTensor& tensor : file_.tensors()) {
      check(used_.count(tensor.name) == 1, ExitCode::input,
            "{}: the tensor {} belongs to a kind of model that is not supported", file_.path().string(),
            tensor.name);
    }
    return std::move(tensors_);
  }

 private:
  const GgufFile& file_;
  std::set<std::string> used_;
  std::vector<ImportedTensor> tensors_;
};

/// All tensors; says in the configuration which parts have a bias and whether the head is tied.
void map_tensors(Table& table, const Sizes& sizes, bool is_qwen, Json& config) {
  const int64_t pairs = is_qwen ? 0 : sizes.head_size;
  const int64_t q_rows = sizes.heads * sizes.head_size;
  const int64_t kv_rows = sizes.kv_heads * sizes.head_size;
  const bool has_attention_bias = table.has("blk.0.attn_q.bias");
  const bool has_mlp_bias = table.has("blk.0.ffn_gate.bias");
  table.add("model.embed_tokens.weight", "token_embd.weight", {sizes.vocabulary, sizes.hidden});
  for (int64_t layer = 0; layer < sizes.layers; ++layer) {
    const std::string from = fmt::format("blk.{}.", layer);
    const std::string to = fmt::format("model.layers.{}.", layer);
    const std::string attention = to + "self_attn.";
    table.add(to + "input_layernorm.weight", from + "attn_norm.weight", {sizes.hidden});
    table.add(attention + "q_proj.weight", from + "attn_q.weight", {q_rows, sizes.hidden}, pairs);
    table.add(attention + "k_proj.weight", from + "attn_k.weight", {kv_rows, sizes.hidden}, pairs);
    table.add(attention + "v_proj.weight", from + "attn_v.weight", {kv_rows, sizes.hidden});
    table.add(attention + "o_proj.weight", from + "attn_output.weight", {sizes.hidden, q_rows});
    if (has_attention_bias) {
      table.add(attention + "q_proj.bias", from + "attn_q.bias", {q_rows}, pairs);
      table.add(attention + "k_proj.bias", from + "attn_k.bias", {kv_rows}, pairs);
      table.add(attention + "v_proj.bias", from + "attn_v.bias", {kv_rows});
      if (!is_qwen) table.add(attention + "o_proj.bias", from + "attn_output.bias", {sizes.hidden});
    }
    table.add(to + "post_attention_layernorm.weight", from + "ffn_norm.weight", {sizes.hidden});
    table.add(to + "mlp.gate_proj.weight", from + "ffn_gate.weight", {sizes.ffn, sizes.hidden});
    table.add(to + "mlp.up_proj.weight", from + "ffn_up.weight", {sizes.ffn, sizes.hidden});
    table.add(to + "mlp.down_proj.weight", from + "ffn_down.weight", {sizes.hidden, sizes.ffn});
    if (has_mlp_bias) {
      table.add(to + "mlp.gate_proj.bias", from + "ffn_gate.bias", {sizes.ffn});
      table.add(to + "mlp.up_proj.bias", from + "ffn_up.bias", {sizes.ffn});
      table.add(to + "mlp.down_proj.bias", from + "ffn_down.bias", {sizes.hidden});
    }
  }
  table.add("model.norm.weight", "output_norm.weight", {sizes.hidden});
  const bool is_tied = !table.has("output.weight");
  if (!is_tied) table.add("lm_head.weight", "output.weight", {sizes.vocabulary, sizes.hidden});
  if (!is_qwen) {
    config["attention_bias"] = has_attention_bias;
    config["mlp_bias"] = has_mlp_bias;
  }
  config["tie_word_embeddings"] = is_tied;
}

/// The factors by which Llama 3 divides its rotary frequencies (rope_freqs.weight), as the numbers of
/// config.json. The file keeps only the factors, so the published numbers are tried and must reproduce them.
Json llama3_scaling(const GgufFile& file, const GgufTensor& factors, double theta, int64_t head_size) {
  const int64_t count = factors.shape.numel();
  std::vector<float> found(static_cast<size_t>(std::max(count, head_size / 2)));
  std::vector<char> staging;
  check(count == head_size / 2, ExitCode::input, "{}: {} has {} factors for {} frequencies",
        file.path().string(), factors.name, count, head_size / 2);
  for (int64_t row = 0; row < factors.shape.rows(); ++row) {
    file.read_rows(factors, row, 1, found.data() + row * factors.shape.columns(), staging);
  }
  const double factor = *std::max_element(found.begin(), found.end());
  constexpr double low = 1, high = 4, original = 8192;
  for (int64_t i = 0; i < count; ++i) {
    const double wavelength =
        2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_size));
    double expected = 1;
    if (wavelength > original / low) {
      expected = factor;
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      expected = 1 / ((1 - smooth) / factor + smooth);
    }
    check(std::abs(found[static_cast<size_t>(i)] - expected) <= 1e-3 * expected, ExitCode::input,
          "{}: the rotary factors of {} are not those of Llama 3 (factor {} is {}, expected {})",
          file.path().string(), factors.name, i, found[static_cast<size_t>(i)], expected);
  }
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", low},
          {"high_freq_factor", high},
          {"original_max_position_embeddings", static_cast<int64_t>(original)}};
}

void read_rotary(const GgufFile& file, const Keys& keys, const Sizes& sizes, Table& table, Json& config) {
  const double theta = keys.number("rope.freq_base").value_or(10000.0);
  check(theta > 1 && std::isfinite(theta), ExitCode::input, "{}: {} is {}, expected more than 1",
        file.path().string(), keys.key("rope.freq_base"), theta);
  config["rope_theta"] = theta;
  config["rope_scaling"] = nullptr;
  const std::string kind = keys.text("rope.scaling.type").value_or("none");
  const double factor =
      keys.number("rope.scaling.factor").value_or(keys.number("rope.scale_linear").value_or(0.0));
  check(kind == "none" || kind == "linear", ExitCode::input,
        "{}: rotary scaling of the kind \"{}\" is not supported: none, linear and Llama 3's are",
        file.path().string(), kind);
  if (factor > 0 && factor != 1) {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"type", "linear"}, {"factor", factor}};
  }
  if (const GgufTensor* factors = file.find("rope_freqs.weight")) {
    table.mark_used(factors->name);
    config["rope_scaling"] = llama3_scaling(file, *factors, theta, sizes.head_size);
  }
}

}  // namespace

ImportedModel read_gguf_model(const GgufFile& file) {
  const Keys keys(file);
  const std::string& architecture = keys.architecture();
  const bool is_qwen = architecture == "qwen2";
  check(is_qwen || architecture == "llama" || architecture == "mistral", ExitCode::input,
        "{}: its architecture is \"{}\", supported are llama, mistral and qwen2", file.path().string(),
        architecture);
  const Sizes sizes = read_sizes(file, keys);
  const int64_t window = keys.integer("attention.sliding_window").value_or(0);
  const bool is_mistral = architecture == "mistral" || (!is_qwen && window > 0);
  const double epsilon = keys.number("attention.layer_norm_rms_epsilon").value_or(1e-5);

  ImportedModel model;
  Json& config = model.config;
  config["architectures"] = Json::array({is_qwen      ? "Qwen2ForCausalLM"
                                         : is_mistral ? "MistralForCausalLM"
                                                      : "LlamaForCausalLM"});
  config["model_type"] = is_qwen ? "qwen2" : is_mistral ? "mistral" : "llama";
  config["vocab_size"] = sizes.vocabulary;
  config["hidden_size"] = sizes.hidden;
  config["intermediate_size"] = sizes.ffn;
  config["num_hidden_layers"] = sizes.layers;
  config["num_attention_heads"] = sizes.heads;
  config["num_key_value_heads"] = sizes.kv_heads;
  config["head_dim"] = sizes.head_size;
  config["max_position_embeddings"] = keys.count("context_length", max_width);
  // The file keeps an f32; its shortest decimal form is what the model's own configuration said.
  config["rms_norm_eps"] = std::stod(fmt::format("{}", static_cast<float>(epsilon)));
  config["hidden_act"] = "silu";
  config["initializer_range"] = 0.02;
  if (is_mistral) config["sliding_window"] = window > 0 ? Json(window) : Json(nullptr);
  if (is_qwen) config["use_sliding_window"] = false;
  Table table(file);
  read_rotary(file, keys, sizes, table, config);
  map_tensors(table, sizes, is_qwen, config);
  model.tensors = table.finish();
  return model;
}

}  // namespace ptrain
