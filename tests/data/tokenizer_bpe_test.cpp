// Merging against a slow and plain statement of the rule, on pieces of every length.
#include "src/data/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "kernels/base/error.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

using Ids = std::vector<int32_t>;

/// A vocabulary over a few letters and random merges of what there is already.
TokenizerFile random_file(uint64_t seed, int num_merges) {
  std::mt19937_64 random(seed);
  TokenizerFile file;
  file.where = "test";
  file.settings = {{"model", {{"type", "BPE"}}}};
  for (const char* letter : {"a", "b", "c", "\u00e9", "\u2581"}) {
    file.vocab.push_back({letter, static_cast<int32_t>(file.vocab.size())});
  }
  while (static_cast<int>(file.merges.size()) < num_merges) {
    const std::string left = file.vocab[random() % file.vocab.size()].token;
    const std::string right = file.vocab[random() % file.vocab.size()].token;
    const bool is_known =
        std::any_of(file.vocab.begin(), file.vocab.end(),
                    [&](const VocabularyEntry& entry) { return entry.token == left + right; });
    if (!is_known) file.vocab.push_back({left + right, static_cast<int32_t>(file.vocab.size())});
    file.merges.push_back({left, right, static_cast<uint32_t>(file.merges.size())});
  }
  return file;
}

/// The rule word by word: while some neighbours can merge, merge the leftmost of those with the lowest rank.
Ids merged_plainly(const TokenizerFile& file, const Vocabulary& vocabulary, std::string_view text) {
  std::vector<std::string> symbols;
  for (size_t i = 0; i < text.size();) {
    const size_t size = decode_utf8(text.data() + i).size_bytes;
    symbols.emplace_back(text.substr(i, size));
    i += size;
  }
  while (true) {
    int64_t best_rank = -1;
    size_t best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      int64_t rank = -1;  // the last of equal pairs counts
      for (const MergeEntry& merge : file.merges) {
        if (merge.left == symbols[i] && merge.right == symbols[i + 1]) rank = merge.rank;
      }
      if (rank >= 0 && (best_rank < 0 || rank < best_rank)) {
        best_rank = rank;
        best = i;
      }
    }
    if (best_rank < 0) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<int64_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) ids.push_back(vocabulary.find(symbol));
  return ids;
}

TEST(Bpe, MergesTheLowestRankFirstAndTheLeftmostOfThose) {
  BpeScratch scratch;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const TokenizerFile file = random_file(seed, 25);
    const Vocabulary vocabulary(file.vocab, "test");
    const Bpe bpe(file, vocabulary, Alphabet::utf8);
    std::mt19937_64 random(seed);
    for (size_t length : {1, 2, 3, 5, 17, 63, 64, 65, 66, 129, 301}) {  // short and long ways meet at 64
      std::string text;
      for (size_t i = 0; i < length; ++i) text += file.vocab[random() % 5].token;
      Ids ids;
      bpe.encode(text, scratch, ids);
      ASSERT_EQ(ids, merged_plainly(file, vocabulary, text)) << "seed " << seed << ", " << text;
    }
  }
}

TEST(Bpe, StaysFastOnAMillionEqualLetters) {
  TokenizerFile file = random_file(1, 0);
  std::string token = "a";
  for (int i = 0; i < 12; ++i) {
    file.vocab.push_back({token + token, static_cast<int32_t>(file.vocab.size())});
    file.merges.push_back({token, token, static_cast<uint32_t>(i)});
    token += token;
  }
  const Vocabulary vocabulary(file.vocab, "test");
  const Bpe bpe(file, vocabulary, Alphabet::utf8);
  BpeScratch scratch;
  Ids ids;
  const auto start = std::chrono::steady_clock::now();
  bpe.encode(std::string(1'000'000, 'a'), scratch, ids);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  // The leftmost first: 244 tokens of 4096, then the rest by halves.
  EXPECT_EQ(ids.size(), 244 + 2);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), vocabulary.find(token)), 244);
  EXPECT_LT(seconds, 10.0);
}

/// What the characters x and y, which the vocabulary lacks, become.
Ids ids_of(const Json& model, std::string_view text, std::vector<VocabularyEntry> more = {}) {
  TokenizerFile file = random_file(1, 0);
  for (const char* token : {"<unk>", "<0x78>", "<0x79>"}) {
    file.vocab.push_back({token, static_cast<int32_t>(file.vocab.size())});
  }
  for (VocabularyEntry& entry : more) file.vocab.push_back(std::move(entry));
  file.settings["model"] = model;
  const Vocabulary vocabulary(file.vocab, "test");
  BpeScratch scratch;
  Ids ids;
  Bpe(file, vocabulary, Alphabet::utf8).encode(text, scratch, ids);
  return ids;
}

TEST(Bpe, TreatsUnknownCharactersAsTheModelSays) {
  EXPECT_EQ(ids_of(Json::object(), "axyb"), (Ids{0, 1}));  // lost
  EXPECT_EQ(ids_of({{"unk_token", "<unk>"}}, "axyb"), (Ids{0, 5, 5, 1}));
  EXPECT_EQ(ids_of({{"unk_token", "<unk>"}, {"fuse_unk", true}}, "axybz"), (Ids{0, 5, 1, 5}));
  EXPECT_EQ(ids_of({{"byte_fallback", true}}, "axyb"), (Ids{0, 6, 7, 1}));
  EXPECT_EQ(ids_of({{"byte_fallback", true}, {"unk_token", "<unk>"}}, "axzb"), (Ids{0, 6, 5, 1}));
}

TEST(Bpe, PutsPrefixAndSuffixOnCharacters) {
  const Json model = {{"continuing_subword_prefix", "##"}, {"end_of_word_suffix", "</w>"}};
  EXPECT_EQ(ids_of(model, "abc", {{"##b", 20}, {"##c</w>", 21}}), (Ids{0, 20, 21}));
  EXPECT_EQ(ids_of(model, "a", {{"a</w>", 22}}), (Ids{22}));
}

TEST(Bpe, TakesAWholePieceFromTheVocabularyWhenMergesAreIgnored) {
  EXPECT_EQ(ids_of({{"ignore_merges", true}}, "abc", {{"abc", 30}}), (Ids{30}));
  EXPECT_EQ(ids_of({{"ignore_merges", false}}, "abc", {{"abc", 30}}), (Ids{0, 1, 2}));
  EXPECT_EQ(ids_of({{"ignore_merges", true}}, "abca", {{"abc", 30}}), (Ids{0, 1, 2, 0}));
}

TEST(Bpe, KnowsWhereCuttingChangesNothing) {
  const auto may_cut = [](std::vector<MergeEntry> merges, const Json& model = Json::object()) {
    TokenizerFile file = random_file(1, 0);
    for (const MergeEntry& merge : merges) {
      file.vocab.push_back({merge.left + merge.right, static_cast<int32_t>(file.vocab.size())});
    }
    file.merges = std::move(merges);
    file.settings["model"] = model;
    const Vocabulary vocabulary(file.vocab, "test");
    return Bpe(file, vocabulary, Alphabet::utf8).may_cut_before("\u2581");
  };
  EXPECT_TRUE(may_cut({{"\u2581", "a", 0}, {"\u2581", "\u2581", 1}, {"\u2581\u2581", "b", 2}}));
  EXPECT_FALSE(may_cut({{"a", "\u2581", 0}}));
  EXPECT_FALSE(may_cut({{"\u2581", "a", 0}, {"\u2581a", "\u2581", 1}}));
  EXPECT_FALSE(may_cut({{"\u2581", "a", 0}}, {{"ignore_merges", true}}));
}

}  // namespace
}  // namespace ptrain
