// A model family described as data: what the block reads instead of family names. Made from config.json by
// families/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/base/tensor.h"
#include "src/io/json_fwd.h"

namespace ptrain {

enum class RopeScaling { none, linear, llama3 };

struct RopeSpec {
  double theta = 10000;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  double low_freq_factor = 1;  // llama3 only, as the next two
  double high_freq_factor = 4;
  int64_t original_max_positions = 8192;
};

/// Letters as everywhere: V vocabulary, C channels, L layers, H heads, K KV heads, D head size, F
/// feed-forward.
struct ModelSpec {
  std::string family;  // model_type of config.json
  int64_t V = 0, C = 0, L = 0, H = 0, K = 0, D = 0, F = 0;
  int64_t max_positions = 0;
  double norm_eps = 1e-5;
  double init_range = 0.02;
  bool is_tied = false;  // the head is the embedding table
  bool has_qkv_bias = false;
  bool has_attention_out_bias = false;
  bool has_mlp_bias = false;
  int64_t window = 0;              // sliding window in positions, 0 = none
  int64_t first_window_layer = 0;  // the window holds from this layer on
  RopeSpec rope;
};

/// Reads config.json of `model_dir`. Errors: ExitCode::input naming the file, the key, what was found and
/// what is possible.
ModelSpec read_model_spec(const std::filesystem::path& model_dir);
ModelSpec model_spec_of(const Json& config, std::string_view where);

/// Parameters, tied ones once.
int64_t parameter_count(const ModelSpec& spec);
/// Parameters that a matrix product reads for every token: all but norms, biases and the embedding look-up.
int64_t matmul_parameters(const ModelSpec& spec);
/// Training FLOPs of one token in a row of length T: 6 * matmul parameters + 6 * L * T * H * D (causal
/// attention).
double training_flops_per_token(const ModelSpec& spec, int64_t T);

/// Angles' cosine and sine for positions 0 … P-1, computed in f64.   cos_sin: (P, D/2, 2) f32 or f64
void fill_rope_table(const ModelSpec& spec, Tensor cos_sin);
/// Angular frequency of pair i of D/2, after scaling.
double rope_frequency(const ModelSpec& spec, int64_t pair);

}  // namespace ptrain
