#include "src/data/packing.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "kernels/base/rng.h"

namespace ptrain {
namespace {

using Rows = std::vector<std::vector<Part>>;

struct Planned {
  Rows rows;
  PackingCounts counts;
};

Planned planned(const std::vector<int64_t>& lengths, RowRules rules, std::vector<uint32_t> order = {}) {
  if (order.empty()) order = sample_order(static_cast<int64_t>(lengths.size()), 1, 0, Shuffle::off);
  const LengthOf length = [&](int64_t i) { return lengths[static_cast<size_t>(i)]; };
  const EpochPlan plan = plan_epoch(length, rules, order);
  Planned out;
  for (int64_t row = 0; row < plan.rows(); ++row) out.rows.push_back(plan.parts(row, length));
  EXPECT_TRUE(plan.parts(plan.rows(), length).empty()) << "rows after the last are empty";
  out.counts = plan.counts();
  return out;
}

// The documents of the golden case llama-packed: 7 5 11 3 9 13 6 2 tokens.
const std::vector<int64_t> golden = {7, 5, 11, 3, 9, 13, 6, 2};

TEST(Packing, IsNextFit) {
  const auto [rows, counts] = planned(golden, {13, RowPacking::on, Overlong::automatic});
  const Rows expected = {
      {{0, 0, 7}, {1, 0, 5}}, {{2, 0, 11}}, {{3, 0, 3}, {4, 0, 9}}, {{5, 0, 13}}, {{6, 0, 6}, {7, 0, 2}}};
  EXPECT_EQ(rows, expected);
  EXPECT_EQ(counts.tokens, 56);
  EXPECT_EQ(counts.split + counts.truncated + counts.dropped + counts.empty, 0);
}

TEST(Packing, FollowsTheOrder) {
  const auto [rows, counts] = planned({4, 5, 6}, {10, RowPacking::on, Overlong::automatic}, {2, 0, 1});
  EXPECT_EQ(rows, (Rows{{{2, 0, 6}, {0, 0, 4}}, {{1, 0, 5}}}));
}

TEST(Packing, WithoutItEveryDocumentHasARow) {
  const auto [rows, counts] = planned({4, 0, 6, 1}, {6, RowPacking::off, Overlong::automatic});
  EXPECT_EQ(rows, (Rows{{{0, 0, 4}}, {{2, 0, 6}}, {{3, 0, 1}}}));
  EXPECT_EQ(counts.empty, 1);
}

TEST(Packing, OverlongRulesDoWhatTheyAreNamedFor) {
  const std::vector<int64_t> lengths = {3, 11, 2, 10, 0};
  struct Case {
    RowPacking packing;
    Overlong overlong;
    Rows rows;
    int64_t split, truncated, dropped, tokens, left_out;
  };
  const Rows split_packed = {{{0, 0, 3}}, {{1, 0, 5}}, {{1, 5, 5}}, {{1, 10, 1}, {2, 0, 2}},
                             {{3, 0, 5}}, {{3, 5, 5}}};
  const Rows split_apart = {{{0, 0, 3}}, {{1, 0, 5}}, {{1, 5, 5}}, {{1, 10, 1}},
                            {{2, 0, 2}}, {{3, 0, 5}}, {{3, 5, 5}}};
  const Rows cut_packed = {{{0, 0, 3}}, {{1, 0, 5}}, {{2, 0, 2}}, {{3, 0, 5}}};
  const std::vector<Case> cases = {
      {RowPacking::on, Overlong::automatic, split_packed, 2, 0, 0, 26, 0},
      {RowPacking::on, Overlong::split, split_packed, 2, 0, 0, 26, 0},
      {RowPacking::off, Overlong::split, split_apart, 2, 0, 0, 26, 0},
      {RowPacking::off, Overlong::automatic, cut_packed, 0, 2, 0, 15, 11},
      {RowPacking::on, Overlong::truncate, cut_packed, 0, 2, 0, 15, 11},
      {RowPacking::on, Overlong::drop, {{{0, 0, 3}, {2, 0, 2}}}, 0, 0, 2, 5, 21},
      {RowPacking::off, Overlong::drop, {{{0, 0, 3}}, {{2, 0, 2}}}, 0, 0, 2, 5, 21},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const auto [rows, counts] = planned(lengths, {5, c.packing, c.overlong});
    EXPECT_EQ(rows, c.rows) << "case " << i;
    EXPECT_EQ(counts.documents, 5);
    EXPECT_EQ(counts.empty, 1);
    EXPECT_EQ(counts.split, c.split) << "case " << i;
    EXPECT_EQ(counts.truncated, c.truncated) << "case " << i;
    EXPECT_EQ(counts.dropped, c.dropped) << "case " << i;
    EXPECT_EQ(counts.tokens, c.tokens) << "case " << i;
    EXPECT_EQ(counts.tokens_left_out, c.left_out) << "case " << i;
  }
}

TEST(Packing, OfRandomLengthsShowsEveryTokenOnceInRowsThatHoldThem) {
  for (uint64_t trial = 0; trial < 300; ++trial) {
    const Rng rng(trial, 5);
    const auto count = static_cast<int64_t>(1 + rng.below(0, 40));
    const auto sequence_length = static_cast<int64_t>(1 + rng.below(1, 30));
    const RowPacking packing = rng.below(2, 2) ? RowPacking::on : RowPacking::off;
    std::vector<int64_t> lengths;
    for (int64_t i = 0; i < count; ++i) {
      lengths.push_back(static_cast<int64_t>(rng.below(10 + static_cast<uint64_t>(i), 70)));
    }
    const auto order = sample_order(count, trial, 2, Shuffle::on);
    const auto [rows, counts] = planned(lengths, {sequence_length, packing, Overlong::split}, order);
    std::map<int64_t, int64_t> seen;  // tokens shown of each sample, in order
    int64_t last_room = 0;
    for (const auto& row : rows) {
      int64_t used = 0;
      ASSERT_FALSE(row.empty());
      EXPECT_TRUE(packing == RowPacking::on ? row[0].count > last_room : row.size() == 1)
          << "a document opens a row only where it did not fit into the last";
      for (const Part& part : row) {
        EXPECT_EQ(part.begin, seen[part.sample]);
        EXPECT_GT(part.count, 0);
        seen[part.sample] += part.count;
        used += part.count;
      }
      EXPECT_LE(used, sequence_length);
      last_room = sequence_length - used;
    }
    for (int64_t i = 0; i < count; ++i) EXPECT_EQ(seen[i], lengths[static_cast<size_t>(i)]);
    EXPECT_EQ(counts.tokens, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  }
}

TEST(Packing, StepsAreRoundedUp) {
  const std::vector<int64_t> lengths(7, 3);
  const LengthOf length = [&](int64_t i) { return lengths[static_cast<size_t>(i)]; };
  const auto plan =
      plan_epoch(length, {3, RowPacking::on, Overlong::automatic}, sample_order(7, 1, 0, Shuffle::on));
  EXPECT_EQ(plan.rows(), 7);
  for (const auto& [global, steps] : std::map<int64_t, int64_t>{{1, 7}, {2, 4}, {7, 1}, {8, 1}}) {
    EXPECT_EQ(plan.steps(global), steps) << global;
  }
}

TEST(Packing, SaysWhatItDid) {
  const std::vector<int64_t> lengths = {3, 11, 0};
  const auto text = [&](Overlong overlong) {
    const RowRules rules{5, RowPacking::on, overlong};
    return describe(planned(lengths, rules).counts, rules);
  };
  EXPECT_EQ(text(Overlong::split),
            "3 documents, 14 tokens; 1 longer than 5 tokens: split; 1 of no tokens: left out");
  EXPECT_EQ(text(Overlong::truncate),
            "3 documents, 8 tokens; 1 longer than 5 tokens: truncated (6 tokens left out); 1 of no tokens: "
            "left out");
  EXPECT_EQ(text(Overlong::drop),
            "3 documents, 3 tokens; 1 longer than 5 tokens: dropped (11 tokens left out); 1 of no tokens: "
            "left out");
}

}  // namespace
}  // namespace ptrain
