// A vocabulary with more rows than the files of its model: who gets which, on every grid; and what the small
// files say of the tokens.
#include "src/train/base_model.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/base/rng.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/elements.h"
#include "src/train/model_files.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t added = 5;

BaseModel grown(const CurveCase& golden, Config::NewTokenInit init) {
  BaseModel base{.spec = golden.spec,
                 .new_rows = {.begin = golden.spec.V, .count = added, .init = init, .seed = 7},
                 .special_tokens = {}};
  base.spec.V += added;
  return base;
}

/// The model as it is after loading on a grid, by way of an HF directory.
HfDir loaded_on(const CurveCase& golden, const BaseModel& base, const Grid& grid, const fs::path& directory) {
  CurveCase larger(golden.directory.filename().string());
  larger.spec = base.spec;
  run_ranks(grid.world(), [&](Communicator& world) {
    Trainer trainer(base.spec, golden.optimizer, *plan_on(larger, grid), world, Context{});
    load_weights(world, HfDir::open(golden.directory), base, trainer);
    save_model(world, {golden.directory}, directory, trainer, DType::f32);
  });
  return HfDir::open(directory);
}

OwnedTensor read(const HfDir& directory, const std::string& name) {
  const StoredTensor* stored = directory.find(name);
  OwnedTensor values(stored->shape, DType::f32);
  directory.read_box(name, whole(stored->shape), values.view);
  return values;
}

/// What row `row` of a tensor must be, whose first rows are in `stored`.
std::vector<float> expected_row(const std::string& name, const OwnedTensor& stored, const BaseModel& base,
                                int64_t row) {
  const int64_t rows = stored.view.shape[0], C = stored.view.shape[1];
  const float* old = stored.view.as<float>();
  if (row < rows) return {old + row * C, old + (row + 1) * C};
  std::vector<float> values(static_cast<size_t>(C));
  for (int64_t c = 0; c < C; ++c) {
    double value = 0;
    if (base.new_rows.init == Config::NewTokenInit::mean) {
      for (int64_t r = 0; r < rows; ++r) value += old[r * C + c];
      value /= static_cast<double>(rows);
    } else {
      value = base.spec.init_range *
              Rng(base.new_rows.seed, hash_of(name)).normal(static_cast<uint64_t>(row * C + c));
    }
    values[static_cast<size_t>(c)] = static_cast<float>(value);
  }
  return values;
}

TEST(BaseModel, NewRowsAreTheSameOnEveryGridAndOldOnesThoseOfTheFiles) {
  for (const char* name : {"llama-gqa-tied", "llama-bias"}) {
    const CurveCase golden(name);
    const HfDir files = HfDir::open(golden.directory);
    for (const Config::NewTokenInit init : {Config::NewTokenInit::normal, Config::NewTokenInit::mean}) {
      const BaseModel base = grown(golden, init);
      for (const Grid& grid : {Grid{}, Grid{.tensor = 2, .pipeline = 2}, Grid{.data = 3, .zero = 3},
                               Grid{.data = 2, .zero = 0}, Grid{.tensor = 2, .data = 2, .zero = 2}}) {
        if (!plan_on(golden, grid)) continue;
        const TemporaryDirectory directory;
        const HfDir made = loaded_on(golden, base, grid, directory.path() / "model");
        ASSERT_EQ(made.tensors().size(), files.tensors().size());
        int grown_tensors = 0;
        for (const StoredTensor& stored : files.tensors()) {
          const OwnedTensor old = read(files, stored.name), now = read(made, stored.name);
          const bool is_grown = now.view.shape[0] != old.view.shape[0];
          grown_tensors += is_grown;
          if (!is_grown) {
            ASSERT_EQ(now.view.shape, old.view.shape);
            EXPECT_EQ(std::memcmp(now.view.data, old.view.data,
                                  static_cast<size_t>(old.view.numel()) * sizeof(float)),
                      0)
                << stored.name << " on " << to_string(grid);
            continue;
          }
          const int64_t C = now.view.shape[1];
          ASSERT_EQ(now.view.shape, (Shape{base.spec.V, C}));
          for (int64_t row = 0; row < base.spec.V; ++row) {
            const float* values = now.view.as<float>() + row * C;
            ASSERT_EQ(std::vector<float>(values, values + C), expected_row(stored.name, old, base, row))
                << "row " << row << " of " << stored.name << " on " << to_string(grid);
          }
        }
        EXPECT_EQ(grown_tensors, golden.spec.is_tied ? 1 : 2);
      }
    }
  }
}

TEST(BaseModel, EvaluationGetsTheSameRowsInSixteenBits) {
  const CurveCase golden("llama-gqa-tied");
  const BaseModel base = grown(golden, Config::NewTokenInit::normal);
  CurveCase larger("llama-gqa-tied");
  larger.spec = base.spec;
  run_ranks(2, [&](Communicator& world) {
    const Grid grid{.tensor = 2};
    Trainer trainer(base.spec, golden.optimizer, *plan_on(larger, grid), world, Context{}, Pass::evaluate);
    const std::vector<PlacedWeight>& placed = trainer.model().placed();
    const OwnedTensor flat({trainer.model().parameters().numel()}, DType::bf16);
    load_weights(world, HfDir::open(golden.directory), base, placed, Context{}, flat.view);
    if (world.rank() != 1) return;
    const PlacedWeight& embedding = placed.front();
    const int64_t C = base.spec.C, last = embedding.box.extent[0] - 1;
    std::vector<float> row(static_cast<size_t>(C));
    const Tensor stored = slice(flat.view, {embedding.offset + last * C, C});
    convert_elements(stored.data, DType::bf16, row.data(), DType::f32, C);
    const OwnedTensor old = read(HfDir::open(golden.directory), embedding.spec.piece.name);
    std::vector<float> want = expected_row(embedding.spec.piece.name, old, base, base.spec.V - 1);
    std::vector<uint16_t> rounded(want.size());
    convert_elements(want.data(), DType::f32, rounded.data(), DType::bf16, C);
    convert_elements(rounded.data(), DType::bf16, want.data(), DType::f32, C);
    EXPECT_EQ(row, want);
  });
}

/// The demo's model directory (257 ids) with more files about tokens, and a file of tokens.
class Tokens : public testing::Test {
 protected:
  Tokens() {
    const fs::path demo = fixture("../../configs/models/demo");
    for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"})
      fs::copy(demo / name, model());
    config_.model.path = model().string();
    config_.data.special_tokens = (directory_.path() / "tokens.json").string();
    name_tokens(R"({"tokens": ["[SEP]", "<|endoftext|>", "[STOP]"]})");
  }
  const fs::path& model() const { return directory_.path(); }
  void name_tokens(const std::string& text) const { write_text(directory_.path() / "tokens.json", text); }
  void set_rows(int64_t V) const {
    Json json = read_json(model() / "config.json");
    json["vocab_size"] = V;
    write_text(model() / "config.json", json.dump());
  }

  TemporaryDirectory directory_;
  Config config_;
};

TEST_F(Tokens, TakeRowsBehindTheVocabularyWhereItHasNoneToSpare) {
  const BaseModel base = read_base_model(config_);
  EXPECT_EQ(base.spec.V, 259);  // one of the three was there
  EXPECT_EQ(base.new_rows.begin, 257);
  EXPECT_EQ(base.stored_spec().V, 257);
  const auto tokenizer = Tokenizer::load(model(), base.special_tokens);
  EXPECT_EQ(about_special_tokens(base, *tokenizer),
            "3 special tokens: [SEP] is 257, <|endoftext|> is 0, [STOP] is 258; the vocabulary grows from "
            "257 to 259 rows");
  set_rows(258);
  EXPECT_EQ(read_base_model(config_).new_rows.count, 1);
  set_rows(320);
  const BaseModel roomy = read_base_model(config_);
  EXPECT_EQ(roomy.spec.V, 320);
  EXPECT_EQ(roomy.new_rows.count, 0);
  EXPECT_NE(about_special_tokens(roomy, *tokenizer).find("of 320 rows has room"), std::string::npos);
  config_.data.special_tokens.reset();
  EXPECT_TRUE(read_base_model(config_).special_tokens.empty());
}

TEST_F(Tokens, EverySmallFileThatListsTokensListsThem) {
  Json before = read_json(model() / "tokenizer_config.json");
  before["added_tokens_decoder"]["0"] = {{"content", "<|endoftext|>"}, {"lstrip", true}};
  write_text(model() / "tokenizer_config.json", before.dump());
  write_text(model() / "special_tokens_map.json",
             R"({"additional_special_tokens": [{"content": "[SEP]", "lstrip": true}, "<old>"]})");
  write_text(model() / "added_tokens.json", R"({"<|endoftext|>": 0})");
  const BaseModel base = read_base_model(config_);
  const TemporaryDirectory written;
  const auto larger = Tokenizer::load(model(), base.special_tokens);
  EXPECT_EQ(copy_small_files(small_files_of(base, model(), larger.get()), written.path()).size(), 5u);

  EXPECT_EQ(read_model_spec(written.path()).V, 259);
  const auto tokenizer = Tokenizer::load(written.path());
  EXPECT_EQ(tokenizer->id_of("[SEP]"), 257);
  EXPECT_EQ(tokenizer->id_of("[STOP]"), 258);
  EXPECT_TRUE(tokenizer->is_special(257) && tokenizer->is_special(258) && tokenizer->is_special(0));
  const std::string text = "1+1=[SEP]2[STOP]";
  EXPECT_EQ(tokenizer->encode(text, Special::add), larger->encode(text, Special::add));

  const Json settings = read_json(written.path() / "tokenizer_config.json");
  EXPECT_EQ(settings["additional_special_tokens"], Json({"[SEP]", "<|endoftext|>", "[STOP]"}));
  EXPECT_EQ(settings["added_tokens_decoder"]["258"]["content"], "[STOP]");
  EXPECT_EQ(settings["added_tokens_decoder"]["257"]["special"], true);
  EXPECT_EQ(settings["added_tokens_decoder"]["0"]["lstrip"], true);  // as it was told there
  EXPECT_EQ(settings["model_max_length"], 256);
  const Json map = read_json(written.path() / "special_tokens_map.json")["additional_special_tokens"];
  ASSERT_EQ(map.size(), 4u);  // [SEP] as it was told there
  EXPECT_EQ(map[0]["lstrip"], true);
  EXPECT_EQ(map[3], "[STOP]");
  EXPECT_EQ(read_json(written.path() / "added_tokens.json")["[STOP]"], 258);
  // The same again changes nothing.
  config_.model.path = written.path().string();
  EXPECT_EQ(read_base_model(config_).new_rows.count, 0);
}

}  // namespace
}  // namespace ptrain
