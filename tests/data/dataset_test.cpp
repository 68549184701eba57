#include "src/data/dataset.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <mutex>
#include <set>

#include "kernels/base/rng.h"
#include "parallel/comm/self_comm.h"
#include "parallel/comm/thread_comm.h"
#include "src/data/batches.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

/// The bytes of a line are its ids; capital letters are not supervised; a '!' cannot be encoded.
Encoding letters(std::atomic<int>* calls = nullptr) {
  Encoding encoding;
  encoding.digest = 17;
  encoding.begin_file = [calls](std::string_view first_line, std::string_view) {
    Encoding::ForFile out;
    out.rows = std::string(first_line.substr(0, 1));
    out.encode = [calls](std::string_view line, std::string_view where) {
      if (calls != nullptr) ++*calls;
      check(line.find('!') == std::string_view::npos, ExitCode::input, "{}: an exclamation mark", where);
      Document document;
      for (const char c : line) {
        document.ids.push_back(c);
        document.labels.push_back(c >= 'A' && c <= 'Z' ? not_supervised : c);
      }
      return document;
    };
    return out;
  };
  return encoding;
}

std::string random_text(uint64_t seed, int lines) {
  const Rng rng(seed, 0);
  uint64_t at = 0;
  std::string text;
  for (int i = 0; i < lines; ++i) {
    for (uint64_t left = rng.below(at++, 400); left > 0; --left) {
      const char first = rng.below(at, 4) == 0 ? 'A' : 'a';
      text += static_cast<char>(first + rng.below(at + 1, 26));
      at += 2;
    }
    text += '\n';
  }
  return text;
}

std::vector<std::string> texts_of(const DocumentSource& documents) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < documents.size(); ++i) {
    std::vector<int32_t> ids(static_cast<size_t>(documents.length(i))), labels(ids.size());
    documents.read(i, 0, ids, labels);
    std::string text;
    for (size_t t = 0; t < ids.size(); ++t) {
      text += static_cast<char>(ids[t]);
      EXPECT_EQ(labels[t], ids[t] >= 'A' && ids[t] <= 'Z' ? not_supervised : ids[t]);
    }
    out.push_back(text);
  }
  return out;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end > begin) out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

struct Thrown {
  ExitCode code = ExitCode::done;
  std::string message = "nothing was thrown";
};

Thrown thrown_by(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

class DatasetTest : public testing::Test {
 protected:
  DatasetOptions options(std::vector<std::string> names, bool is_cached = true) {
    DatasetOptions out;
    for (const std::string& name : names) out.files.push_back((root() / name).string());
    out.vocabulary_size = 128;
    out.cache_directory = is_cached ? root() / "cache" : std::filesystem::path();
    out.threads = 2;
    return out;
  }
  std::filesystem::path root() const { return directory_.path(); }
  std::vector<std::filesystem::path> cached() const {
    std::vector<std::filesystem::path> out;
    for (const auto& entry : std::filesystem::directory_iterator(root() / "cache"))
      out.push_back(entry.path());
    return out;
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(DatasetTest, TextComesBackInFileOrderFromEveryNumberOfRanks) {
  const std::string a = random_text(1, 2000);
  const std::string b = "one\n\nTWO\r\nthree";
  put(root() / "a.jsonl", a);
  put(root() / "b.jsonl", b);
  std::vector<std::string> expected = lines_of(a);
  for (const char* line : {"one", "TWO", "three"}) expected.emplace_back(line);
  std::string bytes_of_one;
  for (const int ranks : {1, 2, 3, 8}) {
    std::filesystem::remove_all(root() / "cache");
    std::mutex mutex;
    run_thread_ranks(ranks, [&](Communicator& comm) {
      const auto dataset = open_dataset(options({"*.jsonl"}), letters(), comm);
      const auto texts = texts_of(*dataset);
      const std::lock_guard lock(mutex);
      EXPECT_TRUE(texts == expected) << ranks << " ranks";
    });
    ASSERT_EQ(cached().size(), 1u) << "no temporary file is left";
    if (ranks == 1) bytes_of_one = bytes_of(cached()[0]);
    EXPECT_TRUE(bytes_of(cached()[0]) == bytes_of_one) << ranks << " ranks";
  }
}

TEST_F(DatasetTest, ASecondStartEncodesNothingAndAChangeOfAnythingDoes) {
  put(root() / "a.jsonl", "one\ntwo\n");
  std::atomic<int> calls = 0;
  const auto open = [&](const Encoding& encoding, int64_t vocabulary = 128) {
    auto chosen = options({"a.jsonl"});
    chosen.vocabulary_size = vocabulary;
    const auto comm = make_self_communicator();
    calls = 0;
    EXPECT_EQ(open_dataset(chosen, encoding, *comm)->size(), 2);
    return calls.load();
  };
  EXPECT_EQ(open(letters(&calls)), 2);
  EXPECT_EQ(open(letters(&calls)), 0);
  EXPECT_EQ(open(letters(&calls), 127), 2) << "another vocabulary";
  Encoding other = letters(&calls);
  other.digest = 18;
  EXPECT_EQ(open(other), 2) << "another encoding";
  put(root() / "a.jsonl", "one\ntwx\n");
  EXPECT_EQ(open(letters(&calls)), 2) << "another text";
  put(root() / "a.jsonl", "one\ntwo\n");
  EXPECT_EQ(open(letters(&calls)), 0) << "the first text again";
}

TEST_F(DatasetTest, ADamagedCacheIsMadeAnewOnEveryRank) {
  const std::string text = random_text(2, 800);
  put(root() / "a.jsonl", text);
  const auto open = [&](int ranks) {
    std::atomic<int> calls = 0;
    run_thread_ranks(ranks, [&](Communicator& comm) {
      const auto dataset = open_dataset(options({"a.jsonl"}), letters(&calls), comm);
      EXPECT_TRUE(texts_of(*dataset) == lines_of(text));
    });
    return calls.load();
  };
  const auto lines = static_cast<int>(lines_of(text).size());
  EXPECT_EQ(open(1), lines);
  const auto path = cached()[0];
  const std::string whole = bytes_of(path);
  for (const double place : {0.0, 0.3, 0.6, 0.8}) {
    std::string damaged = whole;
    damaged[static_cast<size_t>(place * static_cast<double>(whole.size()))] ^= 4;
    put(path, damaged);
    EXPECT_EQ(open(3), lines) << place;
    EXPECT_TRUE(bytes_of(path) == whole);
  }
  put(path, std::string_view(whole).substr(0, whole.size() / 2));
  EXPECT_EQ(open(3), lines);
  EXPECT_EQ(open(2), 0);
}

TEST_F(DatasetTest, OnDisksOfTheNodesOwnEachTextIsEncodedOnceAndEachDiskHasTheTokens) {
  const std::string text = random_text(3, 900);
  put(root() / "a.jsonl", text);
  std::atomic<int> calls = 0;
  const std::vector<std::string> hosts = {"a", "a", "a", "b", "c", "c"};
  const auto cache_of = [&](const std::string& host) { return root() / ("cache-" + host); };
  const auto open = [&] {
    calls = 0;
    run_thread_ranks(6, [&](Communicator& comm) {
      const Storage storage(comm, StorageKind::per_node, disk_of_each_host(hosts, 6));
      auto chosen = options({"a.jsonl"});
      chosen.cache_directory = cache_of(hosts[static_cast<size_t>(comm.rank())]);
      EXPECT_TRUE(texts_of(*open_dataset(chosen, letters(&calls), storage)) == lines_of(text));
    });
    return calls.load();
  };
  const auto lines = static_cast<int>(lines_of(text).size());
  EXPECT_EQ(open(), lines);
  EXPECT_EQ(open(), 0);
  std::set<std::string> contents;
  for (const char* host : {"a", "b", "c"}) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(cache_of(host))) {
      contents.insert(bytes_of(entry.path()));
      ++files;
    }
    EXPECT_EQ(files, 1) << host;
  }
  EXPECT_EQ(contents.size(), 1u);
  std::filesystem::remove_all(cache_of("b"));
  EXPECT_EQ(open(), lines) << "a node with a new disk";
}

TEST_F(DatasetTest, WithoutACacheDirectoryTextStaysInMemory) {
  put(root() / "a.jsonl", "\none\nTWO\n");
  const auto comm = make_self_communicator();
  const auto dataset = open_dataset(options({"a.jsonl"}, false), letters(), *comm);
  EXPECT_EQ(texts_of(*dataset), (std::vector<std::string>{"one", "TWO"}));
  EXPECT_EQ(dataset->name(1), (root() / "a.jsonl").string() + ":3");
  EXPECT_FALSE(std::filesystem::exists(root() / "cache"));
}

TEST_F(DatasetTest, CachedDocumentsAreNamedByTheirLinesAsWell) {
  put(root() / "a.jsonl", "\none\n \nTWO\n");
  put(root() / "b.jsonl", "three\n");
  const auto comm = make_self_communicator();
  const auto dataset = open_dataset(options({"a.jsonl", "b.jsonl"}), letters(), *comm);
  EXPECT_EQ(dataset->name(0), (root() / "a.jsonl").string() + ":2");
  EXPECT_EQ(dataset->name(1), (root() / "a.jsonl").string() + ":4");
  EXPECT_EQ(dataset->name(2), (root() / "b.jsonl").string() + ":1");
  std::filesystem::remove(root() / "a.jsonl");
  EXPECT_TRUE(dataset->name(1).ends_with(": document 1")) << dataset->name(1);
}

TEST_F(DatasetTest, PreprocessedFilesAreUsedAsTheyAreAndMixWithText) {
  put(root() / "a.jsonl", "one\nTWO\n");
  put(root() / "b.jsonl", "three\n");
  const auto comm = make_self_communicator();
  const TokenTotals totals = preprocess(options({"a.jsonl"}), letters(), root() / "out" / "a.h5", *comm);
  EXPECT_EQ(totals.documents, 2);
  EXPECT_EQ(totals.tokens, 6);
  EXPECT_EQ(totals.supervised, 2);
  auto mixed = options({"b.jsonl", "out/a.h5", "b.jsonl", "a.jsonl"});
  const auto dataset = open_dataset(mixed, letters(), *comm);
  EXPECT_EQ(texts_of(*dataset), (std::vector<std::string>{"three", "one", "TWO", "three", "one", "TWO"}));
  const auto again = thrown_by([&] { preprocess(options({"out/a.h5"}), letters(), root() / "b.h5", *comm); });
  EXPECT_EQ(again.message, "data.train: " + (root() / "out/a.h5").string() + ": holds tokens already");
  mixed.vocabulary_size = 100;
  EXPECT_EQ(thrown_by([&] { open_dataset(mixed, letters(), *comm); }).code, ExitCode::input);
}

TEST_F(DatasetTest, SaysWhatIsWrongOnEveryRankInTheSameWords) {
  put(root() / "good.jsonl", "one\n");
  put(root() / "bad.jsonl", random_text(3, 1500) + "no!\n" + random_text(4, 1500) + "none!\n");
  put(root() / "blank.jsonl", "\n \n");
  put(root() / "empty.jsonl", "");
  put(root() / "high.jsonl", "a\nab~\n");
  put(root() / "broken.h5", "text");
  const std::string where = root().string() + "/";
  struct Case {
    std::vector<std::string> files;
    int64_t vocabulary;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"bad.jsonl"}, 128, where + "bad.jsonl:1501: an exclamation mark"},
      {{"good.jsonl", "bad.jsonl"}, 128, where + "bad.jsonl:1501: an exclamation mark"},
      {{"blank.jsonl"}, 128, "data.train: " + where + "blank.jsonl: no rows in it"},
      {{"empty.jsonl", "blank.jsonl"},
       128,
       "data.train: " + where + "empty.jsonl, " + where + "blank.jsonl: no rows in it"},
      {{"high.jsonl"},
       126,
       where + "high.jsonl:2: token 2 has id 126, but the model's vocabulary has 126 (0 to 125)"},
      {{"good.jsonl", "out.jsonl"}, 128, "data.train: " + where + "out.jsonl: no such file"},
      {{"none*.jsonl"}, 128, "data.train: no file matches " + where + "none*.jsonl"},
  };
  for (const Case& c : cases) {
    for (const int ranks : {1, 3}) {
      for (const bool is_cached : {true, false}) {
        std::atomic<int> same = 0;
        run_thread_ranks(ranks, [&](Communicator& comm) {
          auto chosen = options(c.files, is_cached);
          chosen.vocabulary_size = c.vocabulary;
          const Thrown thrown = thrown_by([&] { open_dataset(chosen, letters(), comm); });
          EXPECT_EQ(thrown.code, ExitCode::input);
          // Ranks that stumble over later rows are counted behind the text.
          same += thrown.message.substr(0, c.message.size()) == c.message;
          EXPECT_EQ(thrown.message.substr(0, c.message.size()), c.message);
        });
        EXPECT_EQ(same, ranks);
      }
    }
  }
  const auto comm = make_self_communicator();
  EXPECT_EQ(thrown_by([&] {
              open_dataset(options({"broken.h5"}), letters(), *comm);
            }).message.find(where + "broken.h5: not a whole HDF5 file"),
            0u);
}

TEST_F(DatasetTest, LeavesNoTemporaryFilesAfterAnError) {
  put(root() / "bad.jsonl", "one\nno!\n");
  const auto comm = make_self_communicator();
  EXPECT_EQ(thrown_by([&] { open_dataset(options({"bad.jsonl"}), letters(), *comm); }).code, ExitCode::input);
  EXPECT_TRUE(cached().empty());
}

TEST_F(DatasetTest, BatchesOfACachedFileAreThoseOfMemory) {
  put(root() / "a.jsonl", random_text(5, 300));
  const auto comm = make_self_communicator();
  const auto stored = open_dataset(options({"a.jsonl"}), letters(), *comm);
  const auto kept = open_dataset(options({"a.jsonl"}, false), letters(), *comm);
  const RowRules rules{100, RowPacking::on, Overlong::automatic};
  const Batches a(*stored, rules, {2, 8, 2}, {3, Shuffle::on});
  const Batches b(*kept, rules, {2, 8, 2}, {3, Shuffle::on});
  ASSERT_EQ(a.steps(2), b.steps(2));
  for (int64_t step = 1; step <= a.steps(2); ++step) {
    const MicroBatch x = a.micro_batch(step, 1, 0);
    const MicroBatch y = b.micro_batch(step, 1, 0);
    ASSERT_EQ(x.ids, y.ids);
    ASSERT_EQ(x.targets, y.targets);
    ASSERT_EQ(x.supervised, y.supervised);
  }
}

}  // namespace
}  // namespace ptrain
