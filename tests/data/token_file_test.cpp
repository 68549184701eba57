#include "src/data/token_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "kernels/base/error.h"
#include "kernels/base/rng.h"
#include "src/io/hdf5.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

std::vector<Document> random_documents(Supervision supervision, int count, int64_t longest, uint64_t seed) {
  const Rng rng(seed, 0);
  uint64_t at = 0;
  std::vector<Document> documents(static_cast<size_t>(count));
  for (Document& document : documents) {
    const auto length = static_cast<int64_t>(rng.below(at++, static_cast<uint64_t>(longest) + 1));
    for (int64_t t = 0; t < length; ++t) {
      const auto id = static_cast<int32_t>(rng.below(at++, 1000));
      const uint64_t kind = rng.below(at++, 3);
      document.ids.push_back(id);
      document.labels.push_back(supervision == Supervision::all || kind == 0 ? id
                                : supervision == Supervision::mask || kind == 1
                                    ? not_supervised
                                    : static_cast<int32_t>(rng.below(at++, 1000)));
    }
  }
  return documents;
}

/// Writes the documents through `ranks` spills.
TokenTotals write(const std::filesystem::path& path, const std::vector<Document>& documents,
                  size_t ranks = 1) {
  std::vector<std::unique_ptr<TokenSpill>> spills;
  std::vector<std::filesystem::path> paths;
  TokenTotals totals;
  for (size_t rank = 0; rank < ranks; ++rank) {
    paths.push_back(path.string() + fmt::format(".part-{}", rank));
    spills.push_back(std::make_unique<TokenSpill>(paths.back()));
    for (size_t i = documents.size() * rank / ranks; i < documents.size() * (rank + 1) / ranks; ++i) {
      spills.back()->add(documents[i]);
    }
    spills.back()->finish();
    totals.add(spills.back()->totals());
  }
  write_token_file(path, paths, totals, {7, 0xFFFFFFFFFFFFFFFF, "messages"});
  return totals;
}

TEST(TokenFile, GivesBackWhatWasWrittenWhateverTheNumberOfSpills) {
  const TemporaryDirectory directory;
  for (const Supervision supervision : {Supervision::all, Supervision::mask, Supervision::labels}) {
    const auto documents = random_documents(supervision, 301, 900, 3);
    std::string bytes_of_one;
    for (const size_t ranks : {1u, 3u, 8u}) {
      const auto path = directory.path() / "a.h5";
      const TokenTotals totals = write(path, documents, ranks);
      if (ranks == 1) bytes_of_one = bytes_of(path);
      EXPECT_TRUE(bytes_of(path) == bytes_of_one) << "the same bytes from every number of ranks";
      const TokenFile file(path);
      EXPECT_EQ(file.supervision(), supervision);
      EXPECT_EQ(file.info().content_digest, 7u);
      EXPECT_EQ(file.info().encoding_digest, 0xFFFFFFFFFFFFFFFF);
      EXPECT_EQ(file.info().rows, "messages");
      ASSERT_EQ(file.size(), 301);
      int64_t supervised = 0;
      for (int64_t i = 0; i < file.size(); ++i) {
        const Document& document = documents[static_cast<size_t>(i)];
        ASSERT_EQ(file.length(i), static_cast<int64_t>(document.ids.size()));
        Document read{std::vector<int32_t>(document.ids.size()), std::vector<int32_t>(document.ids.size())};
        file.read(i, 0, read.ids, read.labels);
        ASSERT_EQ(read.ids, document.ids);
        ASSERT_EQ(read.labels, document.labels);
        for (size_t t = 1; t < document.labels.size(); ++t)
          supervised += document.labels[t] != not_supervised;
        if (document.ids.size() < 10) continue;
        std::vector<int32_t> ids(4), labels(4);
        file.read(i, 5, ids, labels);
        EXPECT_TRUE(std::equal(ids.begin(), ids.end(), document.ids.begin() + 5));
        EXPECT_TRUE(std::equal(labels.begin(), labels.end(), document.labels.begin() + 5));
      }
      EXPECT_EQ(file.supervised(), supervised);
      EXPECT_EQ(totals.supervised, supervised);
      for (int part = 0; part < 3; ++part) file.verify(part, 3);
    }
  }
}

TEST(TokenFile, OfNoDocumentsAndOfEmptyOnesIsAFile) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  write(path, {});
  EXPECT_EQ(TokenFile(path).size(), 0);
  write(path, {Document{}, Document{{5}, {5}}, Document{}});
  const TokenFile file(path);
  EXPECT_EQ(file.size(), 3);
  EXPECT_EQ(file.length(0), 0);
  EXPECT_EQ(file.length(1), 1);
  EXPECT_EQ(file.id_end(), 6);
  EXPECT_EQ(file.supervised(), 0) << "nothing predicts the first token";
  file.read(0, 0, {}, {});
}

TEST(TokenFile, LeavesNothingButItselfBehind) {
  const TemporaryDirectory directory;
  write(directory.path() / "a.h5", random_documents(Supervision::mask, 10, 20, 1), 3);
  const auto files = std::distance(std::filesystem::directory_iterator(directory.path()), {});
  EXPECT_EQ(files, 1);
}

TEST(TokenFile, SaysWhatIsNotATokenFile) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const auto open = [&] { TokenFile file(path); };
  EXPECT_EQ(message_of(open), path.string() + ": cannot be opened: No such file or directory");
  put(path, "text");
  EXPECT_EQ(message_of(open).find(path.string() + ": not a whole HDF5 file: "), 0u);
  {
    Hdf5Writer writer(path);
    writer.add("ids", DType::i32, {3});
    writer.close();
  }
  EXPECT_EQ(message_of(open), path.string() + ": an HDF5 file, but not one that `ptrain preprocess` made");
}

/// A token file by hand, to tell one lie at a time.
struct ByHand {
  int64_t version = 1, documents = 2, tokens = 5, supervised = 3, id_end = 9;
  std::string supervision = "mask", digest = "0000000000000001";
  int64_t offsets_length = 3, ids_length = 5, mask_length = 5, checksums_length = 3;
  std::vector<int64_t> offsets = {0, 2, 5};
  std::vector<int32_t> ids = {1, 2, 3, 4, 8};

  void write(const std::filesystem::path& path) const;
};

uint32_t crc_of(const void* data, size_t bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (size_t i = 0; i < bytes; ++i) {
    crc ^= static_cast<const unsigned char*>(data)[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
  }
  return ~crc;
}

void ByHand::write(const std::filesystem::path& path) const {
  Hdf5Writer writer(path);
  writer.set("format", "ptrain token documents");
  writer.set("version", version);
  writer.set("documents", documents);
  writer.set("tokens", tokens);
  writer.set("supervised_tokens", supervised);
  writer.set("id_end", id_end);
  writer.set("supervision", supervision);
  writer.set("content_digest", digest);
  writer.set("encoding_digest", digest);
  writer.set("rows", "text");
  const Hdf5Dataset offsets_set = writer.add("offsets", DType::i64, {offsets_length});
  const Hdf5Dataset ids_set = writer.add("ids", DType::i32, {ids_length});
  const Hdf5Dataset mask_set = writer.add("supervised", DType::u8, {mask_length});
  const Hdf5Dataset sums_set = writer.add("checksums", DType::i64, {checksums_length});
  writer.close();
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto at = [&](const Hdf5Dataset& set, const void* data, size_t bytes) {
    file.seekp(set.offset);
    file.write(static_cast<const char*>(data), std::min(set.bytes(), static_cast<int64_t>(bytes)));
  };
  const std::vector<uint8_t> mask(5, 1);
  const std::vector<int64_t> sums = {crc_of(offsets.data(), 24), crc_of(ids.data(), 20),
                                     crc_of(mask.data(), 5)};
  at(offsets_set, offsets.data(), 24);
  at(ids_set, ids.data(), 20);
  at(mask_set, mask.data(), 5);
  at(sums_set, sums.data(), 24);
}

TEST(TokenFile, FilesThatContradictThemselvesAreRefused) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const std::string tail = ": the file is damaged; make it anew with `ptrain preprocess`";
  struct Case {
    std::function<void(ByHand&)> lie;
    std::string message;
  };
  constexpr int64_t max = std::numeric_limits<int64_t>::max();
  const std::vector<Case> cases = {
      {[](ByHand&) {}, "nothing was thrown"},
      {[](ByHand& h) { h.version = 2; },
       "version 2 of token files; this program reads version 1: make it anew with `ptrain preprocess`"},
      {[](ByHand& h) { h.documents = -1; }, "its counts contradict each other" + tail},
      {[](ByHand& h) { h.documents = max; }, "its counts contradict each other" + tail},
      {[](ByHand& h) { h.documents = 3; }, "dataset offsets is (3) i64, not (4) i64" + tail},
      {[](ByHand& h) { h.tokens = 6; }, "dataset ids is (5) i32, not (6) i32" + tail},
      {[](ByHand& h) { h.tokens = max; }, "dataset ids is (5) i32, not (9223372036854775807) i32" + tail},
      {[](ByHand& h) { h.tokens = -5; }, "its counts contradict each other" + tail},
      {[](ByHand& h) { h.supervised = 6; }, "its counts contradict each other" + tail},
      {[](ByHand& h) { h.id_end = int64_t{1} << 32; }, "its counts contradict each other" + tail},
      {[](ByHand& h) { h.supervision = "some"; }, "its kind of supervision is not known" + tail},
      {[](ByHand& h) { h.supervision = "labels"; }, "dataset labels is missing"},
      {[](ByHand& h) { h.supervision = "all"; }, "dataset checksums is (3) i64, not (2) i64" + tail},
      {[](ByHand& h) { h.digest = "12"; }, "content_digest is \"12\"" + tail},
      {[](ByHand& h) { h.mask_length = 4; }, "dataset supervised is (4) u8, not (5) u8" + tail},
      {[](ByHand& h) { h.checksums_length = 2; }, "dataset checksums is (2) i64, not (3) i64" + tail},
      {[](ByHand& h) {
         h.offsets = {1, 2, 5};
       },
       "the places of its documents contradict each other" + tail},
      {[](ByHand& h) {
         h.offsets = {0, 2, 4};
       },
       "the places of its documents contradict each other" + tail},
      {[](ByHand& h) {
         h.offsets = {0, 6, 5};
       },
       "the places of its documents contradict each other" + tail},
      {[](ByHand& h) {
         h.offsets = {0, -1, 5};
       },
       "the places of its documents contradict each other" + tail},
      {[](ByHand& h) { h.ids[4] = 9; }, "document 1 holds ids outside [0, 9)" + tail},
      {[](ByHand& h) { h.ids[2] = -1; }, "document 1 holds ids outside [0, 9)" + tail},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    ByHand file;
    cases[i].lie(file);
    file.write(path);
    const std::string message = message_of([&] {
      const TokenFile read(path);
      std::vector<int32_t> ids(3), labels(3);
      read.read(0, 0, std::span(ids).first(2), std::span(labels).first(2));
      read.read(1, 0, ids, labels);
    });
    EXPECT_EQ(message, (i == 0 ? "" : path.string() + ": ") + cases[i].message) << "case " << i;
  }
}

TEST(TokenFile, EveryFlippedByteOfTheTokensIsFound) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const auto documents = random_documents(Supervision::mask, 40, 50, 5);
  write(path, documents);
  const std::string whole = bytes_of(path);
  const auto damaged = directory.path() / "b.h5";
  int found = 0;
  int tried = 0;
  put(damaged, whole);
  std::fstream bytes(damaged, std::ios::binary | std::ios::in | std::ios::out);
  const auto set = [&](size_t at, char byte) {
    bytes.seekp(static_cast<int64_t>(at));
    bytes.put(byte);
    ASSERT_TRUE(bytes.flush());
  };
  for (size_t at = 0; at < whole.size(); at += 13) {
    set(at, static_cast<char>(whole[at] ^ 0x10));
    ++tried;
    try {
      const TokenFile file(damaged);
      file.verify(0, 1);
      for (int64_t i = 0; i < file.size(); ++i) {
        const auto length = static_cast<size_t>(file.length(i));
        std::vector<int32_t> ids(length), labels(length);
        file.read(i, 0, ids, labels);
        ASSERT_EQ(ids, documents[static_cast<size_t>(i)].ids) << "byte " << at;
        ASSERT_EQ(labels, documents[static_cast<size_t>(i)].labels) << "byte " << at;
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      ++found;
    }
    set(at, whole[at]);
  }
  // What is not found lies in padding between the datasets.
  EXPECT_GT(found, 8 * TokenFile(path).tokens() / 13 / 2) << "of " << tried;
}

TEST(TokenFile, TruncatedFilesAreRefused) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  write(path, random_documents(Supervision::mask, 40, 50, 5));
  const std::string whole = bytes_of(path);
  for (size_t size = 0; size < whole.size(); size += 211) {
    put(path, std::string_view(whole).substr(0, size));
    EXPECT_NE(message_of([&] { TokenFile file(path); }), "nothing was thrown") << size;
  }
}

TEST(TokenFile, DamageIsFoundAtTheFirstReadOfThatBlockAndVerifySharesTheWork) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  write(path, random_documents(Supervision::mask, 500, 2000, 6));  // some MiB: several blocks
  const Hdf5Dataset ids = Hdf5Reader(path).dataset("ids");
  ASSERT_GT(ids.bytes(), 1 << 20);
  std::string bytes = bytes_of(path);
  bytes[static_cast<size_t>(ids.offset + ids.bytes() - 1)] ^= 1;
  put(path, bytes);
  const TokenFile file(path);
  std::vector<int32_t> first(static_cast<size_t>(file.length(0))),
      last(static_cast<size_t>(file.length(499)));
  std::vector<int32_t> labels(2000);
  file.read(0, 0, first, std::span(labels).first(first.size()));
  EXPECT_NE(
      message_of([&] { file.read(499, 0, last, std::span(labels).first(last.size())); }).find("checksum"),
      std::string::npos);
  int shares = 0;
  for (int part = 0; part < 4; ++part) {
    shares += message_of([&] { TokenFile(path).verify(part, 4); }) != "nothing was thrown";
  }
  EXPECT_EQ(shares, 1);
}

}  // namespace
}  // namespace ptrain
