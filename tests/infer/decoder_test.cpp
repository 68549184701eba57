// Greedy tokens with a cache against those of the reference, which recomputes every prefix.
#include "src/infer/decoder.h"

#include <gtest/gtest.h>

#include "src/infer/sampler.h"
#include "src/io/json.h"
#include "tests/support/golden.h"

namespace ptrain {
namespace {

class Greedy : public testing::TestWithParam<const char*> {};

TEST_P(Greedy, TokensAreThoseOfTheReference) {
  const std::filesystem::path directory = fixture(std::string("golden/families/") + GetParam());
  const ModelSpec spec = read_model_spec(directory);
  const Json greedy = read_json(directory / "greedy.json");
  const auto prompt = greedy["prompt"].get<std::vector<int32_t>>();
  const auto want = greedy["new_tokens"].get<std::vector<int32_t>>();

  Decoder decoder(spec, nullptr, Context{.threads = 2}, static_cast<int64_t>(prompt.size() + want.size()));
  const SafetensorsFile file = SafetensorsFile::open(directory / "model.safetensors");
  for (const PlacedWeight& weight : decoder.placed()) {
    file.read_box(weight.spec.piece.name, weight.box,
                  Tensor(decoder.parameters().as<float>() + weight.offset, weight.box.extent, DType::f32));
  }
  Sampler sampler({});
  std::vector<int32_t> got = {sampler.next(decoder.forward(prompt))};
  while (got.size() < want.size()) got.push_back(sampler.next(decoder.forward({&got.back(), 1})));
  EXPECT_EQ(got, want);

  // Token by token from an empty cache: the same logits as a prefill.
  decoder.clear();
  std::span<const float> logits;
  for (const int32_t& id : prompt) logits = decoder.forward({&id, 1});
  EXPECT_EQ(sampler.next(logits), want[0]);
}

INSTANTIATE_TEST_SUITE_P(Families, Greedy,
                         testing::Values("qwen2", "mistral_full", "mistral_sliding", "llama3_rope"));

TEST(Decoder, RefusesMoreTokensThanTheCacheHolds) {
  const ModelSpec spec = read_model_spec(fixture("golden/families/qwen2"));
  Decoder decoder(spec, nullptr, Context{}, 4);
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
  EXPECT_THROW(decoder.forward(ids), Error);
}

TEST(Sampler, ZeroTemperatureTakesTheLargestAndTheFirstOfEquals) {
  const std::vector<float> logits = {0, 3, 1, 3};
  EXPECT_EQ(Sampler({}).next(logits), 1);
}

TEST(Sampler, TopKAndTopPKeepOnlyTheLikely) {
  std::vector<float> logits(50, 0.0f);
  logits[7] = 5;
  logits[9] = 4.9f;
  Sampler top_k({.temperature = 1, .top_k = 2, .seed = 3});
  Sampler top_p({.temperature = 0.5, .top_p = 0.5, .seed = 3});
  std::array<int, 50> seen{};
  for (int i = 0; i < 200; ++i) {
    ++seen[static_cast<size_t>(top_k.next(logits))];
    EXPECT_EQ(top_p.next(logits), 7);  // e^10 against e^9.8: 0.55 of the mass
  }
  EXPECT_EQ(seen[7] + seen[9], 200);
  EXPECT_GT(seen[9], 60);
}

TEST(Sampler, DrawsByProbabilityAndRepeatsWithTheSeed) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  Sampler a({.temperature = 1, .seed = 11}), b({.temperature = 1, .seed = 11});
  std::array<int, 3> seen{};
  for (int i = 0; i < 8000; ++i) {
    const int32_t id = a.next(logits);
    ASSERT_EQ(id, b.next(logits));
    ++seen[static_cast<size_t>(id)];
  }
  EXPECT_NEAR(seen[0], 1000, 150);
  EXPECT_NEAR(seen[1], 2000, 200);
}

}  // namespace
}  // namespace ptrain
