// import, export and inspect from outside: what they print, what they write, how they end.
#include <gtest/gtest.h>

#include <fstream>

#include "src/io/hf_dir.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/program.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

ProgramResult ptrain_with(std::vector<std::string> words) {
  words.insert(words.begin(), PTRAIN_PROGRAM);
  return run_program(words);
}

/// A model of one layer, all weights 0.5.
void write_gguf(const fs::path& path) {
  GgufWriter w;
  w.set("general.architecture", "llama");
  for (const auto& [key, value] : {std::pair{"block_count", 1},
                                   {"context_length", 16},
                                   {"embedding_length", 8},
                                   {"feed_forward_length", 12},
                                   {"attention.head_count", 2}}) {
    w.set(std::string("llama.") + key, value);
  }
  const auto add = [&](const char* name, const std::vector<uint64_t>& extents) {
    uint64_t count = 1;
    for (const uint64_t extent : extents) count *= extent;
    w.add(name, extents, std::vector<float>(count, 0.5f));
  };
  add("token_embd.weight", {8, 5});
  add("blk.0.attn_norm.weight", {8});
  for (const char* name :
       {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight"}) {
    add(name, {8, 8});
  }
  add("blk.0.ffn_norm.weight", {8});
  add("blk.0.ffn_gate.weight", {8, 12});
  add("blk.0.ffn_up.weight", {8, 12});
  add("blk.0.ffn_down.weight", {12, 8});
  add("output_norm.weight", {8});
  w.write(path);
}

TEST(ModelVerbs, AGgufFileIsImportedInspectedAndExported) {
  const TemporaryDirectory directory;
  const std::string gguf = directory.path() / "x.gguf", model = directory.path() / "model",
                    half = directory.path() / "half";
  write_gguf(gguf);
  const ProgramResult imported = ptrain_with({"import", gguf, model, "--dtype", "bf16"});
  ASSERT_EQ(imported.code, 0) << imported.err;
  EXPECT_NE(imported.out.find("11 tensors, 608 parameters, 1216 bytes of bf16"), std::string::npos)
      << imported.out;
  for (const std::string& path : {gguf, model, model + "/model.safetensors"}) {
    const ProgramResult seen = ptrain_with({"inspect", path, "--verify"});
    EXPECT_EQ(seen.code, 0) << seen.err;
    EXPECT_NE(seen.out.find("11 tensors, 608 elements"), std::string::npos) << seen.out;
    EXPECT_TRUE(seen.err.empty()) << seen.err;
  }
  const ProgramResult exported = ptrain_with({"export", model, half, "--dtype=f16"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(HfDir::open(half).find("model.norm.weight")->dtype, DType::f16);
}

TEST(ModelVerbs, WhatCannotBeReadIsSaidOnceWithTheCodeOfTheContract) {
  const TemporaryDirectory directory;
  const fs::path model = directory.path() / "model";
  fs::create_directories(model);
  std::ofstream(model / "config.json") << "{}";
  std::ofstream(model / "pytorch_model.bin") << "PK";
  std::ofstream(directory.path() / "x.gguf") << "GGUF\x03";
  std::ofstream(directory.path() / "x.safetensors") << "1234567";
  const std::string here = directory.path();
  struct Case {
    std::vector<std::string> words;
    int code;
    std::string reason;
  };
  const Case cases[] = {
      {{"inspect", here + "/absent"}, 3, "no such file"},
      {{"inspect", model}, 3, "pytorch_model.bin, a pickle"},
      {{"inspect", here + "/x.gguf"}, 3, "is it truncated?"},
      {{"inspect", here + "/x.safetensors"}, 3, "is it truncated?"},
      {{"inspect"}, 2, ""},
      {{"import", here + "/x.gguf", here + "/out"}, 3, "is it truncated?"},
      {{"import", here + "/absent", here + "/out"}, 3, "No such file"},
      {{"import", here + "/x.gguf", here + "/out", "--dtype", "int4"},
       2,
       "--dtype is int4, expected f32, bf16 or f16"},
      {{"export", here + "/absent", here + "/out"}, 3, "no such directory"},
      {{"export", model, here + "/out", "--dtype", "int4"}, 2, "expected f32, bf16 or f16"},
  };
  for (const Case& c : cases) {
    const ProgramResult result = ptrain_with(c.words);
    EXPECT_EQ(result.code, c.code) << c.words[0] << ": " << result.err;
    const size_t at = result.err.find(c.reason);
    ASSERT_NE(at, std::string::npos) << result.err << "\n  expected: " << c.reason;
    if (!c.reason.empty()) {
      EXPECT_EQ(result.err.find(c.reason, at + 1), std::string::npos) << result.err;
    }
    EXPECT_TRUE(result.out.empty()) << result.out;
  }
  EXPECT_FALSE(fs::exists(here + "/out"));
}

}  // namespace
}  // namespace ptrain
