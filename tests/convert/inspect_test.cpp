// inspect --verify: every fault by name, and what has no checksums is read to its end.
#include "src/convert/inspect.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/base/error.h"
#include "src/data/token_file.h"
#include "src/io/file.h"
#include "src/io/manifest.h"
#include "src/io/safetensors.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

void flip(const fs::path& path, int64_t at) {
  char byte = 0;
  File::open(path).read_at(at, &byte, 1);
  byte = static_cast<char>(byte ^ 0x10);
  File::open_for_writing(path).write_at(at, &byte, 1);
}

bool has_fault(const Inspection& found, const std::string& text) {
  return std::ranges::any_of(found.faults,
                             [&](const std::string& fault) { return fault.find(text) != std::string::npos; });
}

/// A checkpoint without tensors: four small files.
void write_checkpoint(const fs::path& path) {
  fs::create_directories(path / "state");
  Manifest manifest;
  manifest.step = 3;
  for (const std::string name : {"config.json", "tokenizer.json", "merges.txt", "state/extra.h5"}) {
    write_text(path / name, "{\"name\": \"" + name + "\"}");
    manifest.files.push_back(describe_file(path, name));
  }
  write_text(path / manifest_name, to_text(manifest));
}

TEST(Inspect, EachDamagedFileOfACheckpointIsNamed) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "step-00000003";
  write_checkpoint(path);
  EXPECT_TRUE(inspect(path, Checksums::verify).faults.empty());
  flip(path / "config.json", 2);
  fs::resize_file(path / "merges.txt", 3);
  fs::remove(path / "state/extra.h5");
  const Inspection found = inspect(path, Checksums::verify);
  EXPECT_EQ(found.faults.size(), 3u);
  EXPECT_TRUE(has_fault(found, "config.json: is damaged"));
  EXPECT_TRUE(has_fault(found, "merges.txt: has 3 bytes"));
  EXPECT_TRUE(has_fault(found, "state/extra.h5: cannot be opened"));
}

TEST(Inspect, AFileThatNothingVouchesForIsListed) {
  const TemporaryDirectory directory;
  write_checkpoint(directory.path() / "c");
  write_text(directory.path() / "c/left.over", "x");
  const Inspection found = inspect(directory.path() / "c", Checksums::verify);
  EXPECT_TRUE(found.faults.empty());
  EXPECT_NE(found.text.find("left.over: not in MANIFEST.json"), std::string::npos) << found.text;
}

TEST(Inspect, ValuesThatAreNotFiniteAreNamedByTheirTensor) {
  const TemporaryDirectory directory;
  std::vector<float> good(6, 1.0f), bad(6, 1.0f);
  bad[2] = std::numeric_limits<float>::quiet_NaN();
  bad[5] = -std::numeric_limits<float>::infinity();
  const fs::path path = directory.path() / "a.safetensors";
  write_safetensors(path, {{"good", Tensor(good.data(), {2, 3}, DType::f32)},
                           {"bad", Tensor(bad.data(), {6}, DType::f32)}});
  const Inspection found = inspect(path, Checksums::verify);
  ASSERT_EQ(found.faults.size(), 1u);
  EXPECT_TRUE(has_fault(found, "bad: 2 values are not finite")) << found.faults[0];
  EXPECT_EQ(found.read_bytes, 48);
  EXPECT_TRUE(inspect(path, Checksums::skip).faults.empty());

  std::vector<uint16_t> halves = {0x3c00, 0x7c00, 0x7e01, 0x7bff};
  write_safetensors(path, {{"h", Tensor(halves.data(), {4}, DType::f16)}});
  EXPECT_TRUE(has_fault(inspect(path, Checksums::verify), "h: 2 values"));
  halves = {0x3f80, 0x7f80, 0x7fc0, 0x7f7f};
  write_safetensors(path, {{"b", Tensor(halves.data(), {4}, DType::bf16)}});
  EXPECT_TRUE(has_fault(inspect(path, Checksums::verify), "b: 2 values"));
}

TEST(Inspect, AGgufFileIsReadToItsEnd) {
  const TemporaryDirectory directory;
  GgufWriter writer;
  writer.set("general.architecture", "llama");
  writer.add("a", {3, 2}, {1, 2, 3, std::numeric_limits<float>::infinity(), 5, 6});
  writer.write(directory.path() / "x.gguf");
  const Inspection found = inspect(directory.path() / "x.gguf", Checksums::verify);
  EXPECT_TRUE(has_fault(found, "a: 1 values are not finite"));
  EXPECT_EQ(found.read_bytes, 24);
}

TEST(Inspect, ATokenFileHasChecksumsOfItsOwn) {
  const TemporaryDirectory directory;
  const fs::path spill_path = directory.path() / "spill", path = directory.path() / "t.h5";
  {
    TokenSpill spill(spill_path);
    for (int i = 0; i < 50; ++i) spill.add({.ids = {4660, 4660, i}, .labels = {4660, 4660, i}});
    spill.finish();
    const fs::path spills[] = {spill_path};
    write_token_file(path, spills, spill.totals(), {});
  }
  EXPECT_TRUE(inspect(path, Checksums::verify).faults.empty());
  const std::string bytes = read_text(path, 1 << 20);
  const size_t ids = bytes.find(std::string("\x34\x12\0\0\x34\x12\0\0", 8));
  ASSERT_NE(ids, std::string::npos);
  flip(path, static_cast<int64_t>(ids));
  EXPECT_EQ(inspect(path, Checksums::verify).faults.size(), 1u);
}

}  // namespace
}  // namespace ptrain
