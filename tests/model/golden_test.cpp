// Logits, loss and every gradient of the golden cases on one rank.
#include <gtest/gtest.h>

#include <fstream>

#include "src/io/json.h"
#include "src/model/model.h"
#include "src/model/workload.h"
#include "tests/support/golden.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

struct Case {
  std::string directory;
  std::string config = "config.json";
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.directory << '/' << c.config;
}

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, LogitsLossAndGradientsAreThoseOfTheReference) {
  const std::filesystem::path directory = fixture("golden/" + GetParam().directory);
  const ModelSpec spec = model_spec_of(read_json(directory / GetParam().config), GetParam().config);
  const SafetensorsFile golden = SafetensorsFile::open(directory / "golden.safetensors");
  const OwnedTensor ids = golden.read("input_ids"), labels = golden.read("labels"),
                    logits = golden.read("logits");
  const int64_t B = ids.view.shape[0], T = ids.view.shape[1];
  OwnedTensor lengths;
  if (golden.find("attention_lengths") != nullptr) lengths = golden.read("attention_lengths");
  const GoldenRows rows = golden_rows(ids.view.span<int64_t>(), labels.view.span<int64_t>(), B, T,
                                      lengths.view ? lengths.view.span<int64_t>() : std::span<int64_t>{});

  Model model(spec, one_rank_plan(spec, B, T), 0, {}, Context{.threads = 2});
  load_golden_weights(SafetensorsFile::open(directory / "model.safetensors"), model);
  model.clear();
  MicroInput staging = model.make_staging();
  model.fill_staging(rows.tokens(), staging);
  model.stage().load(0, staging);
  model.stage().forward(0, Pass::train, 1.0 / static_cast<double>(rows.supervised));
  model.stage().backward(0, model.stage().units());

  const double loss = *model.loss().as<double>() / static_cast<double>(rows.supervised);
  const OwnedTensor golden_loss = golden.read("loss");
  EXPECT_NEAR(loss, double{golden_loss.view.as<float>()[0]}, tolerance::golden_loss * loss);

  std::vector<float> all_logits(static_cast<size_t>(B * T * spec.V));
  model.stage().logits(0, [&](int64_t first_row, Tensor chunk) {
    std::copy_n(chunk.as<float>(), chunk.numel(), all_logits.begin() + first_row * spec.V);
  });
  for (int64_t n = 0; n < B * T; ++n) {
    const auto row = static_cast<size_t>(n);
    if (rows.document_start[row] != 0) continue;  // padding: its logits mean nothing
    const std::span<const float> want =
        logits.view.span<float>().subspan(row * static_cast<size_t>(spec.V), static_cast<size_t>(spec.V));
    EXPECT_LE(relative_to_largest({all_logits.data() + n * spec.V, static_cast<size_t>(spec.V)}, want),
              tolerance::golden)
        << "row " << n;
  }

  for (const PlacedWeight& weight : model.placed()) {
    const OwnedTensor want = golden.read("grad." + weight.spec.piece.name);
    const std::span<const float> got(model.gradients().as<float>() + weight.offset,
                                     static_cast<size_t>(weight.box.numel()));
    // A key bias without rotary has no gradient but rounding: judged absolutely.
    double largest = 0;
    for (float value : want.view.span<float>()) largest = std::max(largest, std::abs(double{value}));
    if (largest < 1e-12) continue;
    EXPECT_LE(relative_to_largest(got, want.view.span<float>()), tolerance::golden) << weight.spec.piece.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden,
                         testing::Values(Case{"llama-grid"}, Case{"llama-gqa-tied"}, Case{"llama-bias"},
                                         Case{"families/qwen2"}, Case{"families/qwen2", "config_v4.json"},
                                         Case{"families/mistral_full"}, Case{"families/mistral_sliding"},
                                         Case{"families/mistral_sliding", "config_v4.json"},
                                         Case{"families/llama3_rope"},
                                         Case{"families/llama3_rope", "config_v4.json"}));

}  // namespace
}  // namespace ptrain
