// Which tokens of which samples fill which row of an epoch: decided from lengths alone, on every rank alike.
// Not for reading tokens: batches does that, row by row.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/data/order.h"

namespace ptrain {

enum class RowPacking { off, on };  // off: one document a row, right-padded

/// What becomes of a document that is longer than a row. automatic: split with packing, truncate without.
enum class Overlong { automatic, split, truncate, drop, error };

struct RowRules {
  int64_t sequence_length = 0;  // tokens of a row
  RowPacking packing = RowPacking::on;
  Overlong overlong = Overlong::automatic;
};

/// Tokens [begin, begin + count) of a sample. A part is a document of its own for attention: positions
/// restart, and its first token is never supervised, also when it is a later piece of a split document.
struct Part {
  int64_t sample = 0;
  int64_t begin = 0;
  int64_t count = 0;
  bool operator==(const Part&) const = default;
};

/// What the rules did to the documents of an epoch; the same in every epoch.
struct PackingCounts {
  int64_t documents = 0;
  int64_t empty = 0;            // of no tokens, left out
  int64_t split = 0;            // longer than a row, cut into pieces
  int64_t truncated = 0;        // longer than a row, their ends left out
  int64_t dropped = 0;          // longer than a row, left out
  int64_t tokens = 0;           // that the model sees
  int64_t tokens_left_out = 0;  // of truncated and dropped documents
};

/// The number of tokens of a sample.
using LengthOf = std::function<int64_t(int64_t sample)>;

/// The rows of one epoch. Kept as the order of the samples and where each row begins in it: 4 bytes a sample
/// and 8 bytes a row; the parts of a row are found by walking from there.
class EpochPlan {
 public:
  int64_t rows() const { return static_cast<int64_t>(row_start_.size()); }
  /// ceil(rows / global): the last step is filled up with empty rows.
  int64_t steps(int64_t global) const { return (rows() + global - 1) / global; }
  /// The parts of row `row`, in order; none for rows() and beyond, which are empty rows.
  std::vector<Part> parts(int64_t row, const LengthOf& length) const;
  const PackingCounts& counts() const { return counts_; }

 private:
  friend EpochPlan plan_epoch(const LengthOf&, const RowRules&, std::vector<uint32_t>);
  struct Start {
    uint32_t position;  // in order_
    uint32_t begin;     // of that sample's first token here
  };
  RowRules rules_;
  std::vector<uint32_t> order_;
  std::vector<Start> row_start_;
  PackingCounts counts_;
};

/// Packs the samples, in `order`, next-fit into rows: a document goes into the open row if it fits there,
/// else it opens the next one, for good. Without packing every document opens a row.
/// Overlong::error counts as split here; Batches refuses such documents by name before it plans.
EpochPlan plan_epoch(const LengthOf& length, const RowRules& rules, std::vector<uint32_t> order);

/// The rule that `automatic` stands for.
Overlong resolved(const RowRules& rules);

/// One line for people: "8 documents, 56 tokens; 1 longer than 12 tokens: split; 1 of no tokens: left out".
std::string describe(const PackingCounts& counts, const RowRules& rules);

}  // namespace ptrain
