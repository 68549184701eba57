// What config.json of Llama-like models says, in the spelling of transformers 4 and 5.
#include "src/io/json.h"
#include "src/model/families/families.h"

namespace ptrain {
namespace {

int64_t positive(const Json& config, std::string_view key, std::string_view where) {
  const auto value = required<int64_t>(config, key, where);
  check(value > 0 && value < int64_t{1} << 31, ExitCode::input,
        "{}: \"{}\" is {}, expected a positive number below 2^31", where, key, value);
  return value;
}

double positive_real(const Json& object, std::string_view key, double fallback, std::string_view where) {
  const auto value = optional_or<double>(object, key, fallback, where);
  check(value > 0, ExitCode::input, "{}: \"{}\" is {}, expected a positive number", where, key, value);
  return value;
}

/// transformers 5 keeps everything in rope_parameters; version 4 has rope_theta beside rope_scaling {type |
/// rope_type}.
RopeSpec read_rope(const Json& config, std::string_view where) {
  RopeSpec rope;
  const auto object_at = [&](const char* key) {
    const auto it = config.find(key);
    if (it == config.end() || it->is_null()) return Json(Json::object());
    if (!it->is_object()) wrong_kind(*it, key, "an object", where);
    return *it;
  };
  const Json parameters = object_at("rope_parameters");
  const Json scaling = parameters.empty() ? object_at("rope_scaling") : parameters;
  rope.theta =
      positive_real(parameters, "rope_theta", positive_real(config, "rope_theta", 10000, where), where);
  const auto kind = optional_or<std::string>(
      scaling, "rope_type", optional_or<std::string>(scaling, "type", "default", where), where);
  if (kind == "default") return rope;
  rope.factor = positive_real(scaling, "factor", 1, where);
  if (kind == "linear") {
    rope.scaling = RopeScaling::linear;
  } else if (kind == "llama3") {
    rope.scaling = RopeScaling::llama3;
    rope.low_freq_factor = positive_real(scaling, "low_freq_factor", 1, where);
    rope.high_freq_factor = positive_real(scaling, "high_freq_factor", 4, where);
    rope.original_max_positions =
        optional_or<int64_t>(scaling, "original_max_position_embeddings", 8192, where);
    check(rope.high_freq_factor > rope.low_freq_factor, ExitCode::input,
          "{}: rope scaling has high_freq_factor {} <= low_freq_factor {}", where, rope.high_freq_factor,
          rope.low_freq_factor);
  } else {
    fail(ExitCode::input, "{}: rope type \"{}\" is not supported; possible are default, linear, llama3",
         where, kind);
  }
  return rope;
}

}  // namespace

ModelSpec read_llama_like(const Json& config, std::string_view where) {
  ModelSpec spec;
  spec.V = positive(config, "vocab_size", where);
  spec.C = positive(config, "hidden_size", where);
  spec.L = positive(config, "num_hidden_layers", where);
  spec.H = positive(config, "num_attention_heads", where);
  spec.F = positive(config, "intermediate_size", where);
  spec.K = optional_or<int64_t>(config, "num_key_value_heads", spec.H, where);
  spec.D = optional_or<int64_t>(config, "head_dim", spec.C / spec.H, where);
  spec.max_positions = positive(config, "max_position_embeddings", where);
  spec.norm_eps = positive_real(config, "rms_norm_eps", 1e-6, where);
  spec.init_range = positive_real(config, "initializer_range", 0.02, where);
  spec.is_tied = optional_or<bool>(config, "tie_word_embeddings", false, where);
  spec.rope = read_rope(config, where);
  check(spec.K > 0 && spec.H % spec.K == 0, ExitCode::input,
        "{}: num_attention_heads {} is no multiple of num_key_value_heads {}", where, spec.H, spec.K);
  check(spec.D > 0 && spec.D % 2 == 0, ExitCode::input, "{}: a head size of {}, expected an even number",
        where, spec.D);
  const auto activation = optional_or<std::string>(config, "hidden_act", "silu", where);
  check(activation == "silu", ExitCode::input,
        "{}: hidden_act \"{}\" is not supported here; possible is silu", where, activation);
  return spec;
}

}  // namespace ptrain
