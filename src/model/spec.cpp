#include "src/model/spec.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "src/io/json.h"
#include "src/io/s3.h"
#include "src/model/families/families.h"

namespace ptrain {

ModelSpec read_model_spec(const std::filesystem::path& model_dir) {
  refuse_s3(model_dir);
  check(std::filesystem::is_directory(model_dir), ExitCode::input,
        "model.path: {} is not a directory; give a Hugging Face directory (config.json, *.safetensors)",
        model_dir.string());
  const std::filesystem::path path = model_dir / "config.json";
  return model_spec_of(read_json(path, int64_t{16} << 20), path.string());
}

ModelSpec model_spec_of(const Json& config, std::string_view where) {
  check(config.is_object(), ExitCode::input, "{}: expected an object", where);
  const auto model_type = optional_or<std::string>(config, "model_type", "", where);
  std::string architecture;
  if (const auto it = config.find("architectures"); it != config.end() && it->is_array() && !it->empty()) {
    architecture = json_cast<std::string>(it->front(), "architectures", where);
  }
  std::string known;
  for (const Family& family : families()) {
    if (family.model_type == model_type && (architecture.empty() || architecture == family.architecture)) {
      ModelSpec spec = family.read(config, where);
      spec.family = model_type;
      return spec;
    }
    known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", family.model_type, family.architecture);
  }
  fail(ExitCode::input, "{}: model_type \"{}\", architecture \"{}\" is not supported; possible are {}", where,
       model_type, architecture, known);
}

int64_t matmul_parameters(const ModelSpec& spec) {
  const int64_t attention = spec.C * spec.D * (2 * spec.H + 2 * spec.K);
  return spec.L * (attention + 3 * spec.C * spec.F) + spec.V * spec.C;
}

int64_t parameter_count(const ModelSpec& spec) {
  int64_t block = 2 * spec.C;
  if (spec.has_qkv_bias) block += (spec.H + 2 * spec.K) * spec.D;
  if (spec.has_attention_out_bias) block += spec.C;
  if (spec.has_mlp_bias) block += 2 * spec.F + spec.C;
  return matmul_parameters(spec) + spec.L * block + spec.C + (spec.is_tied ? 0 : spec.V * spec.C);
}

double training_flops_per_token(const ModelSpec& spec, int64_t T) {
  return 6.0 * static_cast<double>(matmul_parameters(spec)) +
         6.0 * static_cast<double>(spec.L) * static_cast<double>(T) * static_cast<double>(spec.H * spec.D);
}

double rope_frequency(const ModelSpec& spec, int64_t pair) {
  const RopeSpec& rope = spec.rope;
  const double frequency =
      std::pow(rope.theta, -2.0 * static_cast<double>(pair) / static_cast<double>(spec.D));
  if (rope.scaling == RopeScaling::none) return frequency;
  if (rope.scaling == RopeScaling::linear) return frequency / rope.factor;
  // Llama 3: long wavelengths are slowed by the factor, short ones kept, those between blended.
  const double turns = static_cast<double>(rope.original_max_positions) * frequency / (2 * std::numbers::pi);
  if (turns <= rope.low_freq_factor) return frequency / rope.factor;
  if (turns >= rope.high_freq_factor) return frequency;
  const double blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - blend) * frequency / rope.factor + blend * frequency;
}

namespace {

template <class T>
void fill_table(const ModelSpec& spec, Tensor cos_sin) {
  const int64_t pairs = spec.D / 2;
  std::vector<double> frequencies;  // one power each, not one for every position
  for (int64_t pair = 0; pair < pairs; ++pair) frequencies.push_back(rope_frequency(spec, pair));
  T* out = cos_sin.as<T>();
  for (int64_t position = 0; position < cos_sin.shape[0]; ++position) {
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(pair)];
      *out++ = static_cast<T>(std::cos(angle));
      *out++ = static_cast<T>(std::sin(angle));
    }
  }
}

}  // namespace

void fill_rope_table(const ModelSpec& spec, Tensor cos_sin) {
  if (cos_sin.dtype == DType::f64) {
    fill_table<double>(spec, cos_sin);
  } else {
    fill_table<float>(spec, cos_sin);
  }
}

}  // namespace ptrain
