// The two conjugate pairs of tensor parallelism, each a no-op for a group of one. Rows pass in strips, so
// that one travels while another is multiplied. Shoeybi et al.: "Megatron-LM" (2019); Korthikanti et al.:
// "Reducing activation recomputation" (2022) for sequence parallel; Wang et al.: "Overlap communication with
// dependent computation via decomposition" (2023).
#pragma once

#include <array>

#include "kernels/base/tensor.h"
#include "parallel/comm/communicator.h"
#include "parallel/plan/workload.h"
#include "parallel/run/tracer.h"
#include "src/model/weights.h"

namespace ptrain {

/// Rows on their way into or out of a layer. Until a strip was waited for nobody may touch it, nor write
/// where it comes from. On a device it is the compute stream that waits.
class RowsUnderWay {
 public:
  RowsUnderWay() = default;

  /// The strip's rows, from here on where they should be.
  Tensor wait(int strip);
  /// All of them.
  Tensor wait();

 private:
  friend class TensorGroup;
  RowsUnderWay(Tensor rows, int strips) : rows_(rows), strips_(strips) {}

  Tensor rows_;
  int strips_ = 0;
  std::array<WatchedTransfer, max_tensor_strips> transfers_;
};

/// Between layers a rank holds `local` rows: all of them, or with sequence parallelism its share of each
/// strip, strip after strip. Inside a layer all ranks hold all rows, and what a row-parallel product leaves
/// are addends.
class TensorGroup {
 public:
  TensorGroup() = default;
  /// `comm` may be null for a group of one. `partial`: (rows, C) scratch, read only with sequence
  /// parallelism. Rows of local tensors must be a multiple of `strips` with sequence parallelism.
  TensorGroup(Communicator* comm, SequenceParallel sequence_parallel, int strips, Tensor partial);

  int size() const { return comm_ == nullptr ? 1 : comm_->size(); }
  bool is_sequence_parallel() const { return is_sequence_parallel_; }
  int strips() const { return strips_; }
  Communicator* comm() const { return comm_; }
  /// Notes what is under way from here on. Null: nothing.
  void set_tracer(Tracer* tracer) { tracer_ = tracer; }

  /// A strip's rows of a tensor of all rows, or of a local one; its elements, of a tensor (rows).
  Tensor cut(Tensor tensor, int strip) const;

  /// Local rows -> all rows: `local` itself without sequence parallelism, else `whole`, on its way in an
  /// all-gather a strip.
  RowsUnderWay enter(Tensor local, Tensor whole) const;

  /// The same where rows are made and used at once: make(strip) makes the strip's local rows, use(strip,
  /// rows) has all of it. With sequence parallelism all strips set out first; else each goes straight
  /// through, beside the sums that later ones may wait for.
  template <class Make, class Use>
  void pass(Tensor local, Tensor whole, const Make& make, const Use& use) const {
    RowsUnderWay rows(is_sequence_parallel_ ? whole : local, strips_);
    for (int strip = 0; strip < strips_; ++strip) {
      make(strip);
      if (is_sequence_parallel_) start_gather(local, strip, rows);
      if (!is_sequence_parallel_) use(strip, rows.wait(strip));
    }
    for (int strip = 0; is_sequence_parallel_ && strip < strips_; ++strip) use(strip, rows.wait(strip));
  }

  /// Where a layer writes its addends: `local` itself, or scratch of all rows with sequence parallelism.
  Tensor addends(Tensor local) const { return is_sequence_parallel_ ? partial_ : local; }

  /// Sums the addends of the group, in rank order, into `local`: an all-reduce or, with sequence parallelism,
  /// a reduce-scatter a strip. make(strip, addends) makes those of a strip, whose sum then sets out.
  template <class Make>
  RowsUnderWay leave(Tensor local, const Make& make) const {
    RowsUnderWay sums(local, strips_);
    for (int strip = 0; strip < strips_; ++strip) {
      make(strip, cut(addends(local), strip));
      start_sum(local, strip, sums);
    }
    return sums;
  }
  /// The same of addends that are there, and waits.
  void leave(Tensor local) const;

  /// whole = part of rank 0, part of rank 1, …
  void all_gather(Tensor part, Tensor whole) const;

 private:
  void start_gather(Tensor local, int strip, RowsUnderWay& rows) const;
  void start_sum(Tensor local, int strip, RowsUnderWay& rows) const;

  Communicator* comm_ = nullptr;
  bool is_sequence_parallel_ = false;
  int strips_ = 1;
  Tensor partial_;
  Tracer* tracer_ = nullptr;
};

}  // namespace ptrain
