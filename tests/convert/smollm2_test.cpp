// The real thing: SmolLM2-135M-Instruct as launch/get_smollm2.sh fetches it. Skipped where the file is not
// there: models/SmolLM2-135M-Instruct.Q4_1.gguf in the source tree, or the file that PTRAIN_SMOLLM2_GGUF
// names.
#include <gtest/gtest.h>

#include <cstdlib>

#include "src/convert/import.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"
#include "tests/support/sha256.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

TEST(Sha256, AgreesWithTheStandardsExamples) {
  EXPECT_EQ(sha256("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string long_text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  EXPECT_EQ(sha256(long_text.data(), long_text.size()),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

/// Imported once for all tests.
class Smollm2 : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* named = std::getenv("PTRAIN_SMOLLM2_GGUF");
    const fs::path path = named ? fs::path(named) : fixture("../../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if (!fs::exists(path)) return;
    directory_ = new TemporaryDirectory();
    import_gguf(path, directory_->path(), DType::f32);
  }
  static void TearDownTestSuite() { delete directory_; }
  void SetUp() override {
    if (!directory_) GTEST_SKIP() << "the model is not here: bash launch/get_smollm2.sh models";
  }

  static inline TemporaryDirectory* directory_ = nullptr;
};

TEST_F(Smollm2, EveryTensorHasTheBytesOfTheReference) {
  const HfDir model = HfDir::open(directory_->path());
  const Json digests = read_json(fixture("smollm2/weights_sha256.json"));
  ASSERT_EQ(model.tensors().size(), digests.size());
  for (const auto& [name, digest] : digests.items()) {
    const OwnedTensor tensor = model.file("model.safetensors").read(name);
    ASSERT_EQ(sha256(tensor.view.data, static_cast<size_t>(tensor.view.bytes())), digest) << name;
  }
}

TEST_F(Smollm2, TheTokenizerGivesTheIdsOfTheReference) {
  const auto tokenizer = Tokenizer::load(directory_->path());
  const Json reference = read_json(fixture("smollm2/tokens.json"));
  for (const char* list : {"texts", "chats"}) {
    for (const Json& row : reference[list]) {
      const auto text = row[row.contains("text") ? "text" : "rendered"].get<std::string>();
      const auto ids = row["ids"].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer->encode(text, Special::add), ids) << text;
      if (row.contains("decoded")) {
        EXPECT_EQ(tokenizer->decode(ids, Skip::none), row["decoded"]);
      }
    }
  }
}

TEST_F(Smollm2, TheConfigurationIsTheModels) {
  const Json config = read_hf_config(directory_->path());
  const Json expected = {{"model_type", "llama"},    {"hidden_size", 576},
                         {"num_hidden_layers", 30},  {"num_attention_heads", 9},
                         {"num_key_value_heads", 3}, {"intermediate_size", 1536},
                         {"vocab_size", 49152},      {"tie_word_embeddings", true},
                         {"rope_theta", 100000.0},   {"max_position_embeddings", 8192},
                         {"rms_norm_eps", 1e-5},     {"bos_token_id", 1},
                         {"eos_token_id", 2},        {"pad_token_id", 2},
                         {"torch_dtype", "float32"}};
  for (const auto& [key, value] : expected.items()) EXPECT_EQ(config[key], value) << key;
}

}  // namespace
}  // namespace ptrain
