#include "src/data/jsonl.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "kernels/base/error.h"
#include "kernels/base/rng.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

struct Read {
  std::vector<std::string> texts;
  std::vector<int64_t> numbers;
};

/// All lines of one file, block by block.
Read read_all(const std::filesystem::path& path) {
  const TextFiles files({path});
  Read out;
  int64_t newlines = 0;
  for (const TextBlock& block : files.blocks()) {
    for (const Line& line : files.lines(block, newlines).lines) {
      out.texts.emplace_back(line.text);
      out.numbers.push_back(line.number);
    }
    newlines += files.scan(block).newlines;
  }
  return out;
}

TEST(Jsonl, LinesComeWithoutEndsAndBlankOnesAreLeftOut) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  struct Case {
    std::string text;
    std::vector<std::string> lines;
    std::vector<int64_t> numbers;
  };
  const std::vector<Case> cases = {
      {"", {}, {}},
      {"\n", {}, {}},
      {"a", {"a"}, {1}},
      {"a\nb\n", {"a", "b"}, {1, 2}},
      {"a\r\nb\r\n", {"a", "b"}, {1, 2}},
      {"\n \t\n\r\na\n\nb", {"a", "b"}, {4, 6}},
      {"\xEF\xBB\xBF{}\n", {"{}"}, {1}},
  };
  for (const Case& c : cases) {
    put(path, c.text);
    const auto [texts, numbers] = read_all(path);
    EXPECT_EQ(texts, c.lines) << c.text;
    EXPECT_EQ(numbers, c.numbers) << c.text;
  }
}

TEST(Jsonl, EveryLineBelongsToOneBlockWhateverItsLength) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  for (uint64_t trial = 0; trial < 6; ++trial) {
    const Rng rng(trial, 0);
    std::string text;
    std::vector<std::string> lines;
    std::vector<int64_t> numbers;
    for (uint64_t i = 0; i < 60; ++i) {
      const uint64_t kind = rng.below(2 * i, 6);
      const uint64_t length = kind == 0  ? 0
                              : kind < 5 ? rng.below(2 * i + 1, 3000)
                                         : rng.below(2 * i + 1, 200'000);
      std::string line(length, static_cast<char>('a' + i % 26));
      if (i == 30)
        line += std::string(65536 - (text.size() + line.size()) % 65536, '!');  // ends at a block's end
      if (!line.empty()) {
        lines.push_back(line);
        numbers.push_back(static_cast<int64_t>(i) + 1);
      }
      text += line + '\n';
    }
    put(path, text);
    const TextFiles files({path});
    EXPECT_GT(files.blocks().size(), 5u);
    const Read read = read_all(path);
    EXPECT_TRUE(read.texts == lines) << "trial " << trial;
    EXPECT_EQ(read.numbers, numbers);
  }
}

TEST(Jsonl, BlocksTileTheFiles) {
  const TemporaryDirectory directory;
  std::vector<std::filesystem::path> paths;
  for (const size_t bytes : {0u, 1u, 65536u, 65537u, 8'000'003u}) {
    paths.push_back(directory.path() / fmt::format("{}.jsonl", bytes));
    put(paths.back(), std::string(bytes, '\n'));
  }
  const TextFiles files(paths);
  std::vector<int64_t> end(paths.size(), 0);
  for (const TextBlock& block : files.blocks()) {
    EXPECT_EQ(block.begin, end[block.file]);
    EXPECT_GT(block.end, block.begin);
    end[block.file] = block.end;
  }
  EXPECT_EQ(end, (std::vector<int64_t>{0, 1, 65536, 65537, 8'000'003}));
}

TEST(Jsonl, TheDigestSeesEveryByteAndWhereFilesEnd) {
  const TemporaryDirectory directory;
  const auto digest = [&](const std::vector<std::string>& texts) {
    std::vector<std::filesystem::path> paths;
    for (const std::string& text : texts) {
      paths.push_back(directory.path() / fmt::format("{}.jsonl", paths.size()));
      put(paths.back(), text);
    }
    const TextFiles files(paths);
    std::vector<BlockScan> scans;
    for (const TextBlock& block : files.blocks()) scans.push_back(files.scan(block));
    return content_digest(files, scans);
  };
  std::string text(70'001, 'x');
  const uint64_t whole = digest({text});
  EXPECT_EQ(whole, digest({text}));
  for (const size_t at : {0u, 1u, 15u, 16u, 65'535u, 65'536u, 69'999u, 70'000u}) {
    std::string other = text;
    other[at] = 'y';
    EXPECT_NE(digest({other}), whole) << at;
  }
  EXPECT_NE(digest({text + '\0'}), whole);
  EXPECT_NE(digest({"ab", "c"}), digest({"a", "bc"}));
  EXPECT_NE(digest({"a", "b"}), digest({"b", "a"}));
  EXPECT_NE(digest({"ab"}), digest({"a", "b"}));
}

TEST(Jsonl, PatternsNameFilesInOrder) {
  const TemporaryDirectory directory;
  const std::string root = directory.path().string();
  for (const char* name : {"b.jsonl", "a.jsonl", "B.jsonl", "c.h5", "d.txt", "[x].jsonl"}) {
    put(directory.path() / name, "{}");
  }
  std::filesystem::create_directory(directory.path() / "sub");
  const auto names = [&](std::vector<std::string> patterns) {
    for (std::string& pattern : patterns) pattern = root + "/" + pattern;
    std::string text;
    for (const auto& path : expand_files(patterns, "data.train")) text += path.filename().string() + " ";
    return text;
  };
  EXPECT_EQ(names({"?.jsonl"}), "B.jsonl a.jsonl b.jsonl ");
  EXPECT_EQ(names({"c.h5", "a.jsonl", "c.h5"}), "c.h5 a.jsonl c.h5 ");
  EXPECT_EQ(names({"[x].jsonl"}), "[x].jsonl ");
  EXPECT_EQ(names({"[ab].jsonl"}), "a.jsonl b.jsonl ");
  EXPECT_EQ(message_of([&] { names({"*.json"}); }), "data.train: no file matches " + root + "/*.json");
  EXPECT_EQ(message_of([&] { names({"no.jsonl"}); }), "data.train: " + root + "/no.jsonl: no such file");
  EXPECT_EQ(message_of([&] { names({"sub"}); }),
            "data.train: " + root + "/sub is a directory; name its files: " + root + "/sub/*.jsonl");
  EXPECT_EQ(message_of([&] { names({"d.txt"}); }),
            "data.train: " + root +
                "/d.txt: only .jsonl files, and .h5 files made by `ptrain preprocess`, are read");
  EXPECT_EQ(message_of([&] { names({}); }), "data.train: no files are named");
}

TEST(Jsonl, BrokenTextIsNamedByFileAndLine) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  put(path, "{}\n\n{\"a\": \"\xFF\"}\n");
  EXPECT_EQ(message_of([&] { read_all(path); }),
            path.string() + ":3:8: not UTF-8 (byte 0xff); is it another encoding, or compressed?");
  put(path, std::string(200'000, '\n') + "\x80");
  EXPECT_EQ(message_of([&] { read_all(path); }).find(path.string() + ":200001:1: not UTF-8 (byte 0x80)"), 0u);
  put(path, "\n" + std::string(static_cast<size_t>(TextFiles::max_line_bytes) + (2 << 20), 'a') + "\n");
  EXPECT_EQ(message_of([&] { read_all(path); }), path.string() + ":2: a line of more than 64 MiB");
}

TEST(Jsonl, TheFirstLineMayComeLate) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  put(path, std::string(150'000, '\n') + "first\nsecond\n");
  EXPECT_EQ(TextFiles({path}).first_line(0), (std::pair<std::string, int64_t>{"first", 150'001}));
  put(path, "\n \n");
  EXPECT_EQ(TextFiles({path}).first_line(0).first, "");
}

TEST(Utf8, ValidAndBrokenSequencesAreTold) {
  for (const std::string_view good :
       {"", "plain", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "1234567\xC3\xA4 8"}) {
    EXPECT_EQ(valid_utf8(good), good.size()) << good;
  }
  for (const std::string_view bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2 ", "\xE0\x9F\xBF", "\xE1\x80", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xF1\x80\x80", "\xFF"}) {
    for (const std::string_view before : {"", "abc", "12345678", "1234567\xC3\xA4"}) {
      EXPECT_EQ(valid_utf8(std::string(before) + std::string(bad)), before.size());
    }
  }
}

}  // namespace
}  // namespace ptrain
