#include "src/data/batches.h"

#include <gtest/gtest.h>

#include <map>

#include "kernels/base/error.h"
#include "kernels/base/rng.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

/// Documents whose tokens name themselves: token t of document d is d * 100 + t; every third is prompt.
MemoryDocuments self_naming(const std::vector<int64_t>& lengths) {
  std::vector<Document> documents;
  for (size_t d = 0; d < lengths.size(); ++d) {
    Document document;
    for (int64_t t = 0; t < lengths[d]; ++t) {
      const auto id = static_cast<int32_t>(d * 100 + static_cast<size_t>(t));
      document.ids.push_back(id);
      document.labels.push_back(t % 3 == 1 ? not_supervised : id);
    }
    documents.push_back(std::move(document));
  }
  return MemoryDocuments(std::move(documents));
}

TEST(Batches, OneRowLooksAsItShould) {
  const auto documents = self_naming({3, 4, 5});
  const Batches batches(documents, {9, RowPacking::on, Overlong::automatic}, {2, 2, 1}, {1, Shuffle::off});
  const MicroBatch batch = batches.micro_batch(1, 0, 0);
  EXPECT_EQ(batch.B, 2);
  EXPECT_EQ(batch.T, 9);
  const int32_t no = not_supervised;
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{0, 1, 2, 100, 101, 102, 103, 0, 0,  //
                                             200, 201, 202, 203, 204, 0, 0, 0, 0}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{no, 2, no, no, 102, 103, no, no, no,  //
                                                 no, 202, 203, no, no, no, no, no, no}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0}));
  EXPECT_EQ(batch.document_start,
            (std::vector<int32_t>{0, 0, 0, 3, 3, 3, 3, 7, 8, 0, 0, 0, 0, 0, 5, 6, 7, 8}));
  EXPECT_EQ(batch.supervised, 5);
  EXPECT_EQ(batch.tokens, 12);
}

TEST(Batches, EmptyRowsAreAllPadding) {
  const auto documents = self_naming({4});
  const Batches batches(documents, {4, RowPacking::off, Overlong::automatic}, {1, 2, 2}, {1, Shuffle::on});
  EXPECT_EQ(batches.steps_per_epoch(0), 1);
  const MicroBatch batch = batches.micro_batch(1, 1, 0);
  EXPECT_EQ(batch.ids, std::vector<int32_t>(4, 0));
  EXPECT_EQ(batch.targets, std::vector<int32_t>(4, not_supervised));
  EXPECT_EQ(batch.positions, std::vector<int32_t>(4, 0));
  EXPECT_EQ(batch.document_start, (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(batch.supervised, 0);
  EXPECT_EQ(batch.tokens, 0);
}

// The documents of the golden case: packed into rows of any length that holds them they have 48 targets.
TEST(Batches, GoldenDocumentsKeepTheirTargetsInRowsOfEveryLength) {
  std::vector<Document> documents;
  const std::string text = read_text(fixture("golden/llama-packed/train.jsonl"), 1 << 20);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const Json row = parse_json(std::string_view(text).substr(begin, end - begin), "train.jsonl");
    documents.push_back(
        {row.at("input_ids").get<std::vector<int32_t>>(), row.at("labels").get<std::vector<int32_t>>()});
    begin = end + 1;
  }
  const Json golden = read_json(fixture("golden/llama-packed/packed.json"));
  ASSERT_EQ(documents.size(), golden.at("documents").size());
  for (size_t i = 0; i < documents.size(); ++i) {
    EXPECT_EQ(static_cast<int64_t>(documents[i].ids.size()),
              golden.at("documents")[i].at("length").get<int64_t>());
  }
  const MemoryDocuments source(documents);
  for (int64_t sequence_length = 13; sequence_length <= 60; ++sequence_length) {
    for (const RowPacking packing : {RowPacking::on, RowPacking::off}) {
      for (const Shuffle shuffle : {Shuffle::on, Shuffle::off}) {
        const Batches batches(source, {sequence_length, packing, Overlong::error}, {2, 2, 1}, {7, shuffle});
        int64_t targets = 0;
        int64_t tokens = 0;
        for (int64_t step = 1; step <= batches.steps_per_epoch(0); ++step) {
          const MicroBatch batch = batches.micro_batch(step, 0, 0);
          EXPECT_EQ(batches.supervised(step), batch.supervised);
          targets += batch.supervised;
          tokens += batch.tokens;
        }
        EXPECT_EQ(targets, golden.at("targets").get<int64_t>()) << sequence_length;
        EXPECT_EQ(tokens, 56);
      }
    }
  }
}

TEST(Batches, TargetsNeverCrossDocumentsAndPositionsRestart) {
  for (uint64_t trial = 0; trial < 100; ++trial) {
    const Rng rng(trial, 1);
    std::vector<int64_t> lengths;
    for (uint64_t i = 0; i < 20; ++i) lengths.push_back(static_cast<int64_t>(rng.below(i, 40)));
    lengths.push_back(5);
    const auto documents = self_naming(lengths);
    const auto sequence_length = static_cast<int64_t>(3 + rng.below(100, 40));
    const Batches batches(documents, {sequence_length, RowPacking::on, Overlong::split}, {3, 3, 1},
                          {trial, Shuffle::on});
    for (int64_t step = 1; step <= batches.steps_per_epoch(0); ++step) {
      const MicroBatch batch = batches.micro_batch(step, 0, 0);
      for (int64_t i = 0; i < batch.B * batch.T; ++i) {
        const auto at = static_cast<size_t>(i);
        const int64_t t = i % batch.T;
        ASSERT_EQ(batch.positions[at], t - batch.document_start[at]);
        if (batch.targets[at] == not_supervised) continue;
        ASSERT_LT(t + 1, batch.T);
        ASSERT_EQ(batch.targets[at], batch.ids[at] + 1) << "the next token of the same document";
        ASSERT_EQ(batch.ids[at + 1], batch.targets[at]);
        ASSERT_EQ(batch.document_start[at], batch.document_start[at + 1]);
      }
    }
  }
}

/// Every row of a step in the order of (data rank, micro-batch), as its ids.
std::vector<std::vector<int32_t>> rows_of_step(const Batches& batches, int64_t step) {
  std::vector<std::vector<int32_t>> rows;
  const BatchGeometry& g = batches.geometry();
  for (int64_t d = 0; d < g.data; ++d) {
    for (int64_t i = 0; i < g.micros(); ++i) {
      const MicroBatch batch = batches.micro_batch(step, d, i);
      for (int64_t row = 0; row < batch.B; ++row) {
        rows.emplace_back(batch.ids.begin() + row * batch.T, batch.ids.begin() + (row + 1) * batch.T);
      }
    }
  }
  return rows;
}

TEST(Batches, AreTheSameOnEveryGridAndShowEverySampleOnceAnEpoch) {
  for (uint64_t trial = 0; trial < 20; ++trial) {
    const Rng rng(trial, 2);
    std::vector<int64_t> lengths;
    for (uint64_t i = 0; i < 30; ++i) lengths.push_back(static_cast<int64_t>(1 + rng.below(i, 25)));
    const auto documents = self_naming(lengths);
    const RowRules rules{20, rng.below(50, 2) ? RowPacking::on : RowPacking::off, Overlong::split};
    const OrderRules order{trial, Shuffle::on};
    const Batches one(documents, rules, {1, 12, 1}, order);
    for (const BatchGeometry g : {BatchGeometry{12, 12, 1}, BatchGeometry{1, 12, 12}, BatchGeometry{2, 12, 3},
                                  BatchGeometry{3, 12, 2}, BatchGeometry{1, 12, 4}}) {
      const Batches other(documents, rules, g, order);
      ASSERT_EQ(one.steps(3), other.steps(3));
      for (int64_t step = one.steps(3); step >= 1; --step) {
        ASSERT_EQ(rows_of_step(one, step), rows_of_step(other, step)) << "step " << step;
        ASSERT_EQ(one.supervised(step), other.supervised(step));
      }
    }
    int64_t step = 1;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::map<int64_t, int64_t> tokens;
      for (int64_t s = 0; s < one.steps_per_epoch(epoch); ++s, ++step) {
        EXPECT_EQ(one.place(step).epoch, epoch);
        EXPECT_EQ(one.place(step).step, s);
        for (int64_t row = 0; row < 12; ++row) {
          for (const Part& part : one.parts(step, row)) tokens[part.sample] += part.count;
        }
      }
      for (size_t i = 0; i < lengths.size(); ++i) EXPECT_EQ(tokens[static_cast<int64_t>(i)], lengths[i]);
    }
  }
}

TEST(Batches, SayWhatIsWrong) {
  const auto documents = self_naming({3, 9, 12});
  const auto make = [&](RowRules rules, BatchGeometry geometry) {
    return message_of([&] { Batches(documents, rules, geometry, {}); }, std::nullopt);
  };
  const RowRules rules{4, RowPacking::on, Overlong::automatic};
  EXPECT_EQ(
      make(rules, {3, 10, 2}),
      "batch.global = 10 is not a multiple of batch.micro * data ranks = 3 * 2 = 6; the nearest: 6 or 12");
  EXPECT_EQ(make(rules, {3, 1, 2}),
            "batch.global = 1 is not a multiple of batch.micro * data ranks = 3 * 2 = 6; the nearest: 6");
  EXPECT_EQ(make(rules, {0, 1, 1}),
            "batch.micro = 0, batch.global = 1 and 1 data ranks: each must be at least 1");
  EXPECT_EQ(make({0, RowPacking::on, Overlong::automatic}, {1, 1, 1}),
            "data.sequence_length = 0: must be at least 1");
  EXPECT_EQ(
      make({8, RowPacking::on, Overlong::error}, {1, 1, 1}),
      "row 2: 9 tokens, longer than data.sequence_length = 8 (2 such documents of 3), and data.overlong is "
      "error: choose split, truncate or drop, or a longer sequence_length");
  EXPECT_EQ(
      make({2, RowPacking::on, Overlong::drop}, {1, 1, 1}),
      "the data holds no rows to train on: 3 documents, 0 tokens; 3 longer than 2 tokens: dropped (24 tokens "
      "left out)");
}

}  // namespace
}  // namespace ptrain
