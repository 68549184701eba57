// What the tests of comparisons share: random values with their fingerprint, and a golden case as a run.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/base/rng.h"
#include "src/train/config_load.h"
#include "src/train/fingerprint.h"
#include "tests/support/fixtures.h"

namespace ptrain {

inline std::vector<float> random_values(uint64_t seed, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(Rng(seed, 1).normal(i));
  return values;
}

inline Fingerprint fingerprint_of(const std::vector<float>& values, uint64_t stream = 7) {
  Fingerprint sum;
  add_elements(stream, 0, values, sum);
  return sum;
}

/// The golden case llama-gqa-tied as a run: 4 blocks, 6 heads, 120 rows of 19 ids.
class TinyCase {
 public:
  TinyCase() {
    std::filesystem::create_directory(directory_.path() / "model");
    for (const char* name : {"config.json", "model.safetensors"})
      std::filesystem::copy(fixture("golden/llama-gqa-tied") / name, directory_.path() / "model");
  }

  LoadedConfig config(std::string_view more) const {
    const std::string text = fmt::format(
        "output: {0}/out\nmodel: {{path: {0}/model}}\n"
        "data: {{train: [{1}], sequence_length: 19, packing: false}}\n"
        "optimizer: {{learning_rate: 0.003, warmup_steps: 5}}\n{2}",
        directory_.path().string(), fixture("golden/llama-gqa-tied/train.jsonl").string(), more);
    return load_config_text(text, "run.yaml", {.required = required_keys()});
  }
  ModelSpec spec() const { return read_model_spec(directory_.path() / "model"); }
  bool has_output() const { return std::filesystem::exists(directory_.path() / "out"); }

 private:
  TemporaryDirectory directory_;
};

}  // namespace ptrain
