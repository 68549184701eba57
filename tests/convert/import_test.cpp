#include "src/convert/import.h"

#include <gtest/gtest.h>

#include <functional>

#include "kernels/base/rng.h"
#include "src/convert/gguf_model.h"
#include "src/io/hf_dir.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// A model of odd sizes, as numbers and as a GGUF file with HF-ordered values.
struct TinyModel {
  std::string architecture = "llama";
  uint64_t layers = 2, hidden = 20, heads = 5, kv_heads = 1, head_size = 4, ffn = 28, vocabulary = 7;
  bool has_head = false;
  bool has_attention_bias = false;
  std::function<void(GgufWriter&)> change = [](GgufWriter&) {};

  bool is_paired() const { return architecture != "qwen2"; }
};

/// Element (row, column) of an HF tensor: a different number for each.
float value_of(const std::string& name, uint64_t row, uint64_t column) {
  const Rng rng(5, hash_of(name));
  return static_cast<float>(rng.normal(row * 1000 + column));
}

/// Adds an HF tensor under its GGUF name; rows of q and k change places as the file format wants it.
void add(GgufWriter& writer, const std::string& hf, const std::string& gguf, uint64_t rows, uint64_t columns,
         uint64_t paired_head_size = 0) {
  std::vector<float> values;
  for (uint64_t row = 0; row < rows; ++row) {
    uint64_t source = row;
    if (paired_head_size > 0) {
      const uint64_t inside = row % paired_head_size;
      source = row - inside + inside % 2 * (paired_head_size / 2) + inside / 2;
    }
    for (uint64_t column = 0; column < columns; ++column) values.push_back(value_of(hf, source, column));
  }
  const bool is_vector = hf.ends_with("norm.weight") || hf.ends_with("bias");
  writer.add(gguf, is_vector ? std::vector{rows * columns} : std::vector{columns, rows}, values);
}

GgufWriter write_model(const TinyModel& m) {
  GgufWriter w;
  w.set("general.architecture", m.architecture);
  const auto set = [&](const std::string& key, auto value) { w.set(m.architecture + "." + key, value); };
  set("block_count", static_cast<uint32_t>(m.layers));
  set("context_length", 77);
  set("embedding_length", static_cast<uint32_t>(m.hidden));
  set("feed_forward_length", static_cast<uint32_t>(m.ffn));
  set("attention.head_count", static_cast<uint32_t>(m.heads));
  set("attention.head_count_kv", static_cast<uint32_t>(m.kv_heads));
  set("attention.layer_norm_rms_epsilon", 1e-6f);
  set("rope.freq_base", 50000.0f);
  m.change(w);
  const uint64_t q = m.heads * m.head_size, kv = m.kv_heads * m.head_size;
  const uint64_t pairs = m.is_paired() ? m.head_size : 0;
  add(w, "model.embed_tokens.weight", "token_embd.weight", m.vocabulary, m.hidden);
  for (uint64_t layer = 0; layer < m.layers; ++layer) {
    const std::string from = fmt::format("model.layers.{}.", layer), to = fmt::format("blk.{}.", layer);
    add(w, from + "input_layernorm.weight", to + "attn_norm.weight", 1, m.hidden);
    add(w, from + "self_attn.q_proj.weight", to + "attn_q.weight", q, m.hidden, pairs);
    add(w, from + "self_attn.k_proj.weight", to + "attn_k.weight", kv, m.hidden, pairs);
    add(w, from + "self_attn.v_proj.weight", to + "attn_v.weight", kv, m.hidden);
    add(w, from + "self_attn.o_proj.weight", to + "attn_output.weight", m.hidden, q);
    if (m.has_attention_bias) {
      add(w, from + "self_attn.q_proj.bias", to + "attn_q.bias", q, 1, pairs);
      add(w, from + "self_attn.k_proj.bias", to + "attn_k.bias", kv, 1, pairs);
      add(w, from + "self_attn.v_proj.bias", to + "attn_v.bias", kv, 1);
      if (m.is_paired()) add(w, from + "self_attn.o_proj.bias", to + "attn_output.bias", m.hidden, 1);
    }
    add(w, from + "post_attention_layernorm.weight", to + "ffn_norm.weight", 1, m.hidden);
    add(w, from + "mlp.gate_proj.weight", to + "ffn_gate.weight", m.ffn, m.hidden);
    add(w, from + "mlp.up_proj.weight", to + "ffn_up.weight", m.ffn, m.hidden);
    add(w, from + "mlp.down_proj.weight", to + "ffn_down.weight", m.hidden, m.ffn);
  }
  add(w, "model.norm.weight", "output_norm.weight", 1, m.hidden);
  if (m.has_head) add(w, "lm_head.weight", "output.weight", m.vocabulary, m.hidden);
  return w;
}

HfDir import_model(const TinyModel& model, const fs::path& directory, DType dtype = DType::f32) {
  write_model(model).write(directory / "x.gguf");
  import_gguf(directory / "x.gguf", directory / "hf", dtype);
  return HfDir::open(directory / "hf");
}

void expect_values(const HfDir& model) {
  for (const StoredTensor& tensor : model.tensors()) {
    OwnedTensor values(tensor.shape, DType::f32);
    model.read_box(tensor.name, whole(tensor.shape), values.view);
    const bool is_norm = tensor.name.ends_with("norm.weight");
    const int64_t columns = tensor.shape.dims() == 1 && !is_norm ? 1 : tensor.shape.columns();
    for (int64_t i = 0; i < tensor.shape.numel(); ++i) {
      ASSERT_EQ(values.view.as<float>()[i],
                value_of(tensor.name, static_cast<uint64_t>(i / columns), static_cast<uint64_t>(i % columns)))
          << tensor.name << " " << i;
    }
  }
}

TEST(Import, EveryTensorArrivesUnderItsHfNameWithRowsInHfOrder) {
  struct Case {
    TinyModel model;
    std::string model_type;
    size_t tensors;
  };
  const Case cases[] = {
      {{}, "llama", 2 + 2 * 9},
      {{.kv_heads = 5, .has_head = true}, "llama", 3 + 2 * 9},
      {{.has_attention_bias = true}, "llama", 2 + 2 * 13},
      {{.architecture = "qwen2", .has_attention_bias = true}, "qwen2", 2 + 2 * 12},
      {{.change = [](GgufWriter& w) { w.set("llama.attention.sliding_window", 33); }}, "mistral", 2 + 2 * 9},
      {{.head_size = 6, .change = [](GgufWriter& w) { w.set("llama.attention.key_length", 6); }},
       "llama",
       20},
  };
  for (const Case& c : cases) {
    TemporaryDirectory directory;
    const HfDir model = import_model(c.model, directory.path());
    EXPECT_EQ(model.config()["model_type"], c.model_type);
    EXPECT_EQ(model.config()["tie_word_embeddings"], !c.model.has_head);
    EXPECT_EQ(model.config()["head_dim"], c.model.head_size);
    EXPECT_EQ(model.config()["rms_norm_eps"], 1e-6);
    EXPECT_EQ(model.config()["rope_theta"], 50000.0);
    EXPECT_EQ(model.tensors().size(), c.tensors);
    expect_values(model);
    EXPECT_FALSE(fs::exists(directory.path() / "hf" / "tokenizer.json"));  // the file holds none
    EXPECT_FALSE(fs::exists(directory.path() / "hf" / ".making"));
  }
}

TEST(Import, WeightsAreRoundedToTheAskedTypeAndAnOlderModelIsReplaced) {
  TemporaryDirectory directory;
  import_model({.has_head = true}, directory.path());
  std::ofstream(directory.path() / "hf" / "tokenizer.json") << "of the older model";
  const HfDir model = import_model({}, directory.path(), DType::bf16);
  EXPECT_EQ(model.config()["torch_dtype"], "bfloat16");
  EXPECT_EQ(model.find("lm_head.weight"), nullptr);
  EXPECT_EQ(model.find("model.norm.weight")->dtype, DType::bf16);
  EXPECT_FALSE(fs::exists(directory.path() / "hf" / "tokenizer.json"));
  OwnedTensor values(Shape{20}, DType::f32);
  model.read_box("model.norm.weight", whole(Shape{20}), values.view);
  for (int64_t i = 0; i < 20; ++i) {
    const float exact = value_of("model.norm.weight", 0, static_cast<uint64_t>(i));
    EXPECT_NEAR(values.view.as<float>()[i], exact, std::abs(exact) / 256);
  }
}

TEST(Import, Llama3sRotaryFactorsBecomeItsScaling) {
  TemporaryDirectory directory;
  TinyModel model{.hidden = 64, .heads = 1, .head_size = 64};
  const auto factors = [](double factor, float wrong) {
    std::vector<float> values;
    for (int i = 0; i < 32; ++i) {
      const double wavelength = 2 * 3.14159265358979 * std::pow(50000.0, 2.0 * i / 64);
      double value = wavelength > 8192 ? factor : 1.0;
      if (wavelength <= 8192 && wavelength >= 2048) {
        const double smooth = (8192 / wavelength - 1) / 3;
        value = 1 / ((1 - smooth) / factor + smooth);
      }
      values.push_back(static_cast<float>(value) + (i == 10 ? wrong : 0.0f));
    }
    return values;
  };
  model.change = [&](GgufWriter& w) { w.add("rope_freqs.weight", {32}, factors(32, 0)); };
  const HfDir imported = import_model(model, directory.path());
  EXPECT_EQ(imported.config()["rope_scaling"]["rope_type"], "llama3");
  EXPECT_EQ(imported.config()["rope_scaling"]["factor"], 32.0);
  model.change = [&](GgufWriter& w) { w.add("rope_freqs.weight", {32}, factors(32, 0.5f)); };
  EXPECT_THROW(import_model(model, directory.path()), Error);
}

TEST(Import, WhatIsNotSupportedOrContradictsItselfIsRefusedByName) {
  struct Case {
    TinyModel model;
    std::string reason;
  };
  const auto changed = [](std::function<void(GgufWriter&)> change) {
    return TinyModel{.change = std::move(change)};
  };
  const Case cases[] = {
      {{.architecture = "gemma2"}, "its architecture is \"gemma2\", supported are llama, mistral and qwen2"},
      {changed([](auto& w) { w.set("llama.expert_count", 8); }), "mixture of experts"},
      {changed([](auto& w) { w.set("llama.rope.dimension_count", 2); }),
       "rotary embedding over 2 of 4 dimensions"},
      {changed([](auto& w) { w.set("llama.rope.scaling.type", "yarn"); }), "of the kind \"yarn\""},
      {changed([](auto& w) { w.set("llama.attention.key_length", 0); }), "key_length is 0"},
      {changed([](auto& w) { w.set("llama.attention.key_length", 8); }),
       "attn_q.weight has the shape (20, 20)"},
      {changed([](auto& w) { w.set("llama.attention.value_length", 8); }), "another size for values"},
      {changed([](auto& w) { w.add("blk.0.attn_q_norm.weight", {4}, std::vector<float>(4)); }),
       "the tensor blk.0.attn_q_norm.weight belongs to a kind of model that is not supported"},
      {{.kv_heads = 3}, "5 heads are no multiple of 3"},
      {{.heads = 3}, "the width 20 is no multiple of 3 heads"},
      {{.layers = 0}, "block_count is 0"},
  };
  for (const Case& c : cases) {
    TemporaryDirectory directory;
    std::string reason;
    try {
      import_model(c.model, directory.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      reason = error.what();
      EXPECT_FALSE(fs::exists(directory.path() / "hf")) << "nothing is written where the file is refused";
    }
    EXPECT_NE(reason.find(c.reason), std::string::npos) << reason << "\n  expected: " << c.reason;
  }
}

TEST(Import, KQuantsAreRefusedByName) {
  TemporaryDirectory directory;
  GgufWriter quantised;
  quantised.set("general.architecture", "llama");
  for (const auto& [key, value] : {std::pair{"block_count", 1},
                                   {"context_length", 8},
                                   {"embedding_length", 256},
                                   {"feed_forward_length", 256},
                                   {"attention.head_count", 4}}) {
    quantised.set(std::string("llama.") + key, value);
  }
  quantised.add("token_embd.weight", {256, 2}, 12, std::string(2 * 144, 'x'));
  quantised.write(directory.path() / "x.gguf");
  try {
    import_gguf(directory.path() / "x.gguf", directory.path() / "hf", DType::f32);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("token_embd.weight is packed as Q4_K, which is not supported"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ptrain
