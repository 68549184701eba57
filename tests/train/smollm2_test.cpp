// SmolLM2-135M-Instruct, a real model, against what transformers and an independent float64 Llama made of it:
// its logits, greedy replies, and ten steps of fine-tuning. Skipped where its GGUF is not there; see
// launch/get_smollm2.sh.
#include <gtest/gtest.h>

#include <cstdlib>

#include "src/convert/import.h"
#include "src/infer/decoder.h"
#include "src/infer/sampler.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/model_files.h"
#include "src/train/run_data.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// Logits of an fp32 run are up to 4.9e-5 off, losses of a curve 1.5e-5, norms 3.9e-5 (measured on
/// transformers).
constexpr double logit_tolerance = 1e-4, loss_tolerance = 3e-5, norm_tolerance = 1e-4;

class SmolLm2 : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* named = std::getenv("PTRAIN_SMOLLM2_GGUF");
    const std::filesystem::path gguf =
        named != nullptr ? named : fixture("../../models/SmolLM2-135M-Instruct.Q4_1.gguf").string();
    if (!std::filesystem::exists(gguf)) return;
    directory_ = new TemporaryDirectory;
    import_gguf(gguf, directory_->path(), DType::f32);
  }
  static void TearDownTestSuite() { delete directory_; }
  void SetUp() override {
    if (directory_ == nullptr) GTEST_SKIP() << "no GGUF; bash launch/get_smollm2.sh models fetches it";
  }

  static const std::filesystem::path& model() { return directory_->path(); }
  static std::unique_ptr<Decoder> decoder(int64_t positions) {
    auto made =
        std::make_unique<Decoder>(read_model_spec(model()), nullptr, Context{.threads = 2}, positions);
    const HfDir files = HfDir::open(model());
    for (const PlacedWeight& weight : made->placed()) {
      files.read_box(weight.spec.piece.name, weight.box,
                     Tensor(made->parameters().as<float>() + weight.offset, weight.box.extent, DType::f32));
    }
    return made;
  }

  static TemporaryDirectory* directory_;
};

TemporaryDirectory* SmolLm2::directory_ = nullptr;

TEST_F(SmolLm2, LogitsAreTheReferences) {
  const SafetensorsFile golden = SafetensorsFile::open(fixture("smollm2/logits.safetensors"));
  const OwnedTensor ids = golden.read("input_ids"), last = golden.read("logits_last4_f64run_as_f32");
  const auto all = ids.view.span<int32_t>();
  const auto decode = decoder(64);
  // The last four rows: a prefill of 61 tokens, then one at a time against the cache.
  std::span<const float> logits = decode->forward(all.first(61));
  for (size_t row = 0; row < 4; ++row) {
    if (row > 0) logits = decode->forward(all.subspan(60 + row, 1));
    const auto want = last.view.span<float>().subspan(row * logits.size(), logits.size());
    double difference = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      difference = std::max(difference, std::abs(double{logits[i]} - double{want[i]}));
    EXPECT_LE(difference, logit_tolerance) << "row " << 60 + row;
  }
}

TEST_F(SmolLm2, GreedyRepliesAreTheReferences) {
  const TextEncoder encoder(model(), {.spec = read_model_spec(model())}, true);
  const auto decode = decoder(256);
  const Json golden = read_json(fixture("smollm2/greedy.json"));
  for (const Json& reply : golden["replies"]) {
    const Json messages = Json::array({Json{{"role", "user"}, {"content", reply["prompt"]}}});
    std::vector<int32_t> next =
        encoder.tokenizer->encode(render_prompt(encoder.text, messages), Special::none);
    EXPECT_EQ(next, reply["prompt_ids"].get<std::vector<int32_t>>());
    const auto want = reply["ids"].get<std::vector<int32_t>>();
    decode->clear();
    Sampler sampler({});
    std::vector<int32_t> got;
    while (got.size() < want.size()) {
      got.push_back(sampler.next(decode->forward(next)));
      next.assign(1, got.back());
    }
    EXPECT_EQ(got, want) << reply["prompt"];
    if (reply["stopped_at_eos"].get<bool>()) {
      EXPECT_TRUE(std::ranges::count(encoder.text.eos_ids, got.back()));
    }
    EXPECT_EQ(encoder.tokenizer->decode(got, Skip::none), reply["text"].get<std::string>());
  }
}

/// The reference's rows of ids, padding cut off.
std::vector<Document> reference_rows() {
  const SafetensorsFile file = SafetensorsFile::open(fixture("smollm2/finetune_rows.safetensors"));
  const OwnedTensor ids = file.read("input_ids"), labels = file.read("labels"),
                    lengths = file.read("lengths");
  std::vector<Document> rows;
  const int64_t T = ids.view.shape[1];
  for (int64_t row = 0; row < ids.view.shape[0]; ++row) {
    const int32_t* first_id = ids.view.as<int32_t>() + row * T;
    const int32_t* first_label = labels.view.as<int32_t>() + row * T;
    const int64_t length = lengths.view.as<int32_t>()[row];
    rows.push_back({.ids = {first_id, first_id + length}, .labels = {first_label, first_label + length}});
  }
  return rows;
}

TEST_F(SmolLm2, ChatRowsBecomeTheReferencesIdsAndLabels) {
  const TextEncoder encoder(model(), {.spec = read_model_spec(model())}, true);
  const std::string text = read_text(fixture("smollm2/sft.jsonl"), 1 << 24);
  const std::vector<Document> want = reference_rows();
  size_t begin = 0;
  for (const Document& row : want) {
    const size_t end = text.find('\n', begin);
    const Document got = encoder.rows->encode(
        parse_json(std::string_view(text).substr(begin, end - begin), "sft"), RowShape::messages, "sft");
    EXPECT_EQ(got.ids, row.ids);
    EXPECT_EQ(got.labels, row.labels);
    begin = end + 1;
  }
}

TEST_F(SmolLm2, TenStepsOfFineTuningAreTheReferencesOnSixRanks) {
  const Json golden = read_json(fixture("smollm2/finetune.json"));
  const ModelSpec spec = read_model_spec(model());
  const MemoryDocuments source(reference_rows());
  ParallelConfig parallel;
  parallel.tensor = 3;
  parallel.pipeline = 2;
  parallel.is_sequence_parallel = true;
  parallel.micro = 2;
  parallel.global = 4;
  parallel.sequence_length = 96;
  const Config::Optimizer rules{
      .learning_rate = 2e-5, .schedule = Config::LearningRate::constant, .warmup_steps = 3};
  const Batches batches(source, {.sequence_length = 96, .packing = RowPacking::off},
                        {.micro = 2, .global = 4, .data = 1}, {.shuffle = Shuffle::off});
  run_ranks(6, [&](Communicator& world) {
    Trainer trainer(spec, rules, make_plan(workload_of(spec, SequenceParallel::on, 2), parallel, 6), world,
                    Context{});
    load_weights(world, HfDir::open(model()), {.spec = trainer.model().spec()}, trainer);
    for (int64_t step = 1; step <= 10; ++step) {
      const StepResult result = trainer.step(batches, step, 10);
      const Json& want = golden["fp64"][static_cast<size_t>(step - 1)];
      const double loss = want["loss"].get<double>(), norm = want["grad_norm"].get<double>();
      EXPECT_NEAR(result.loss, loss, loss_tolerance * loss) << "step " << step;
      EXPECT_NEAR(result.grad_norm, norm, norm_tolerance * norm) << "step " << step;
      EXPECT_EQ(result.supervised_tokens, want["supervised_tokens"].get<int64_t>());
    }
    const Evaluation after = trainer.evaluate(batches, 10);
    EXPECT_NEAR(after.loss, golden["eval_loss_all_rows_after"]["fp64"].get<double>(),
                loss_tolerance * after.loss);
  });
}

}  // namespace
}  // namespace ptrain
