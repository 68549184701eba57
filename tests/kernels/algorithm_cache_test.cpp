// The file of chosen algorithms: what is written is read again, anything else is refused.
#include "kernels/cuda/algorithm_cache.h"

#include <gtest/gtest.h>

#include <fstream>

#include "kernels/base/error.h"
#include "tests/support/fixtures.h"

namespace ptrain::cuda {
namespace {

const AlgorithmOrigin origin{.gpu = "NVIDIA H200", .library_version = 130100};

AlgorithmChoice choice(int seed) {
  AlgorithmChoice made{.nanoseconds = 1000 + seed};
  for (size_t i = 0; i < made.config.size(); ++i)
    made.config[i] = static_cast<uint8_t>(static_cast<size_t>(seed) * 37 + i * 5);
  return made;
}

AlgorithmCache filled() {
  AlgorithmCache cache(origin);
  cache.put("tn.bf16.m4096.n8192.k512", choice(1));
  cache.put("nn.f32.m1", choice(200));
  return cache;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

/// A folder that goes away with the test, and how much is in it.
class Folder {
 public:
  std::filesystem::path operator/(const std::string& name) const { return directory_.path() / name; }
  size_t files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_.path()), {}));
  }

 private:
  const TemporaryDirectory directory_;
};

TEST(AlgorithmCache, FindsWhatWasPut) {
  const AlgorithmCache cache = filled();
  EXPECT_EQ(cache.size(), 2u);
  ASSERT_NE(cache.find("nn.f32.m1"), nullptr);
  EXPECT_EQ(*cache.find("nn.f32.m1"), choice(200));
  EXPECT_EQ(cache.find("nn.f32.m2"), nullptr);
}

TEST(AlgorithmCache, ItsTextReadsBackTheSame) {
  for (const AlgorithmCache& written : {filled(), AlgorithmCache(origin)}) {
    AlgorithmCache read(origin);
    EXPECT_EQ(read.read(written.text()), "");
    EXPECT_EQ(read.text(), written.text());
  }
}

TEST(AlgorithmCache, EveryOtherTextIsRefusedWhole) {
  const std::string good = filled().text(), hex = good.substr(good.find(" ", good.find("nn.f32")) + 1, 128);
  std::vector<std::pair<std::string, std::string>> bad = {
      {"", "does not begin"},
      {"\n", "does not begin"},
      {replaced(good, "algorithms 1", "algorithms 2"), "does not begin"},
      {replaced(good, "H200", "H100"), "holds for"},
      {replaced(good, "130100", "130101"), "holds for"},
      {replaced(good, "end 2", "end 3"), "cut off"},
      {good + "more\n", "cut off"},
      {good + good, "cut off"},
      {replaced(good, "nn.f32", "NN.f32"), "line 4"},
      {replaced(good, "nn.f32.m1", std::string(201, 'a')), "line 4"},
      {replaced(good, "nn.f32.m1 ", ""), "line 4"},
      {replaced(good, "nn.f32.m1 ", "nn.f32.m1  "), "line 4"},
      {replaced(good, hex, hex.substr(1)), "line 4"},
      {replaced(good, hex, "0x" + hex.substr(2)), "line 4"},
      {replaced(good, hex, hex + "00"), "line 4"},
      {replaced(good, " 1200\n", " -1\n"), "line 4"},
      {replaced(good, " 1200\n", " 12e3\n"), "line 4"},
      {replaced(good, " 1200\n", " 99999999999999999999\n"), "line 4"},
      {replaced(good, " 1200\n", "\n"), "line 4"},
      {replaced(good, "tn.bf16.m4096.n8192.k512", "nn.f32.m1"), "line 5 chooses"},
      {std::string((16 << 20) + 1, 'x'), "longer"},
  };
  for (size_t length = 1; length < good.size(); length += 7) bad.emplace_back(good.substr(0, length), "");
  for (const auto& [text, reason] : bad) {
    AlgorithmCache cache(origin);
    cache.put("own", choice(3));
    const std::string why = cache.read(text);
    EXPECT_NE(why, "") << text;
    EXPECT_NE(why.find(reason), std::string::npos) << why << " for " << text.substr(0, 600);
    EXPECT_EQ(cache.size(), 1u);
  }
}

TEST(AlgorithmCache, ADriverMayCallItsGpuAnything) {
  AlgorithmCache cache({.gpu = "two\nlines\x01 and more\xff", .library_version = 1});
  cache.put("a", choice(1));
  AlgorithmCache again({.gpu = "two\nlines\x01 and more\xff", .library_version = 1});
  EXPECT_EQ(again.read(cache.text()), "");
  EXPECT_EQ(again.size(), 1u);
}

TEST(AlgorithmCache, AKeyWithOtherCharactersIsADefect) {
  AlgorithmCache cache(origin);
  EXPECT_THROW(cache.put("two words", choice(1)), Error);
  EXPECT_THROW(cache.put("", choice(1)), Error);
}

TEST(AlgorithmCache, AFileIsReplacedAtOnceAndKeepsTheChoicesOfOthers) {
  const Folder folder;
  const auto path = folder / "deep" / "algorithms.txt";
  AlgorithmCache cache = filled();
  cache.save(path);
  AlgorithmCache other(origin);  // a rank that met other shapes
  other.put("other", choice(9));
  other.put("nn.f32.m1", choice(10));
  other.save(path);
  AlgorithmCache read(origin);
  read.load(path);
  EXPECT_EQ(read.size(), 3u);
  EXPECT_EQ(*read.find("nn.f32.m1"), choice(10));
  EXPECT_EQ(*read.find("tn.bf16.m4096.n8192.k512"), choice(1));
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path()))
    files += entry.is_regular_file();
  EXPECT_EQ(files, 1u);  // nothing half written stays
}

TEST(AlgorithmCache, ADamagedOrMissingFileIsAnEmptyCache) {
  const Folder folder;
  AlgorithmCache cache(origin);
  cache.load(folder / "missing");
  EXPECT_EQ(cache.size(), 0u);
  std::ofstream(folder / "damaged") << "ptrain algorithms 1\n\0garbage";
  cache.load(folder / "damaged");
  EXPECT_EQ(cache.size(), 0u);
  cache.load(folder / "");  // a folder
  EXPECT_EQ(cache.size(), 0u);
  // A save puts a good file in its place.
  filled().save(folder / "damaged");
  cache.load(folder / "damaged");
  EXPECT_EQ(cache.size(), 2u);
}

TEST(AlgorithmCache, AFileThatCannotBeWrittenIsTold) {
  const Folder folder;
  std::ofstream(folder / "file") << "x";
  try {
    filled().save(folder / "file" / "algorithms.txt");
    FAIL() << "written below a file";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
    EXPECT_NE(std::string(error.what()).find("algorithms.txt"), std::string::npos);
  }
  EXPECT_EQ(folder.files(), 1u);
}

}  // namespace
}  // namespace ptrain::cuda
