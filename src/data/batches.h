// What the model sees: micro-batches of rows, found by (step, data coordinate, micro-batch) alone.
// Not for reading or tokenizing files (dataset) and not for deciding rows (packing).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "src/data/document_source.h"
#include "src/data/packing.h"

namespace ptrain {

/// What one micro-batch gives the model. N = B*T. Padding has id 0, target -100, position 0, and every
/// padding token is a document of its own.
struct MicroBatch {
  int64_t B = 0;                   // rows
  int64_t T = 0;                   // tokens of a row
  std::vector<int32_t> ids;        // (B, T)
  std::vector<int32_t> targets;    // (B, T) what t predicts: the label of t + 1 inside its document, or -100
  std::vector<int32_t> positions;  // (B, T) restart at each document
  std::vector<int32_t> document_start;  // (B, T) time index, in the row, of the first token of t's document
  int64_t supervised = 0;               // targets that are not -100
  int64_t tokens = 0;                   // that are not padding
};

/// How the rows of a step are dealt out.
struct BatchGeometry {
  int64_t micro = 1;   // rows of a micro-batch
  int64_t global = 1;  // rows of a step, over all data ranks; a multiple of micro * data
  int64_t data = 1;    // data ranks
  int64_t micros() const { return global / (micro * data); }  // micro-batches of a step on each data rank
};

/// How the samples of each epoch are ordered.
struct OrderRules {
  uint64_t seed = 1;
  Shuffle shuffle = Shuffle::on;
};

/// Step s (from 1) takes the next `global` rows of its epoch; epochs (from 0) follow each other, each with an
/// order of its own; the last step of an epoch is filled up with empty rows. Of a step's rows, micro-batch i
/// of data rank d takes [(d*k + i) * micro, + micro), k = micros(): with global 8, micro 2, data 2, so k = 2,
/// data rank 1's first micro-batch has rows 4 and 5.
///
/// For validation: Shuffle::off, and the steps of epoch 0.
/// Const members may be called from several threads at once.
class Batches {
 public:
  /// `source` must outlive it. Errors: ExitCode::usage: a geometry that does not divide; ExitCode::input: see
  /// plan_epoch.
  Batches(const DocumentSource& source, RowRules rules, BatchGeometry geometry, OrderRules order);

  /// Steps of one epoch; packing makes it differ from epoch to epoch.
  int64_t steps_per_epoch(int64_t epoch) const;
  /// Steps of the epochs 0 … epochs - 1 together.
  int64_t steps(int64_t epochs) const;

  struct Place {
    int64_t epoch = 0;  // from 0
    int64_t step = 0;   // of the epoch, from 0
  };
  Place place(int64_t step) const;

  /// The rows of micro-batch `micro` of data rank `data_coordinate` in step `step`, from 1.
  MicroBatch micro_batch(int64_t step, int64_t data_coordinate, int64_t micro) const;

  /// Supervised tokens of the whole step, over all data ranks; reads all its rows.
  int64_t supervised(int64_t step) const;

  /// The parts in row `row` (0 … global - 1) of step `step`: which samples the row shows; none: an empty row.
  std::vector<Part> parts(int64_t step, int64_t row) const;

  /// What packing did; the same for every epoch.
  PackingCounts counts() const;
  const RowRules& rules() const { return rules_; }
  const BatchGeometry& geometry() const { return geometry_; }

 private:
  std::shared_ptr<const EpochPlan> plan(int64_t epoch) const;
  void learn_epoch(int64_t known) const;
  void fill_row(const std::vector<Part>& parts, int64_t row, MicroBatch& out) const;

  const DocumentSource* source_;
  RowRules rules_;
  BatchGeometry geometry_;
  OrderRules order_;
  LengthOf length_;
  mutable std::mutex mutex_;                        // guards the two below
  mutable std::vector<int64_t> epoch_begin_ = {0};  // steps before each epoch; one entry more than known
  mutable std::vector<std::pair<int64_t, std::shared_ptr<const EpochPlan>>> plans_;  // those used last
};

}  // namespace ptrain
