// The two conjugate pairs of tensor parallelism, each a no-op for a group of one.
// Shoeybi et al.: "Megatron-LM" (2019); Korthikanti et al.: "Reducing activation recomputation" (2022) for
// sequence parallel.
#pragma once

#include "kernels/base/tensor.h"
#include "parallel/comm/communicator.h"
#include "src/model/weights.h"

namespace ptrain {

/// Between layers a rank holds `local` rows: all of them, or with sequence parallelism its share. Inside a
/// layer all ranks hold all rows, and what a row-parallel product leaves are addends.
class TensorGroup {
 public:
  TensorGroup() = default;
  /// `comm` may be null for a group of one. `partial`: (rows, C) scratch, read only with sequence
  /// parallelism.
  TensorGroup(Communicator* comm, SequenceParallel sequence_parallel, Tensor partial);

  int size() const { return comm_ == nullptr ? 1 : comm_->size(); }
  bool is_sequence_parallel() const { return is_sequence_parallel_; }
  Communicator* comm() const { return comm_; }

  /// Local rows -> all rows. Returns `local` itself without sequence parallelism, else `whole`, filled by an
  /// all-gather.
  Tensor enter(Tensor local, Tensor whole) const;

  /// Where a layer writes its addends: `local` itself, or scratch of all rows with sequence parallelism.
  Tensor addends(Tensor local) const { return is_sequence_parallel_ ? partial_ : local; }
  /// Sums the addends of the group, in rank order, into `local`: all-reduce, or reduce-scatter with sequence
  /// parallelism.
  void leave(Tensor local) const;

 private:
  Communicator* comm_ = nullptr;
  bool is_sequence_parallel_ = false;
  Tensor partial_;
};

}  // namespace ptrain
