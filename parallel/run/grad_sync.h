// Sums gradients over the mesh: addends of tensor replicas first, then over the data axis, bucket by bucket
// while the last backward still runs. Not for the tied embedding: the schedule exchanges that itself.
#pragma once

#include <vector>

#include "kernels/base/stream.h"
#include "parallel/comm/communicator.h"
#include "parallel/plan/flat.h"

namespace ptrain {

/// A weight whose copies on the ranks of a tensor group hold addends of its gradient.
struct ReplicatedPiece {
  int bucket = 0;
  Shape shape;         // global
  Box box;             // local
  int64_t offset = 0;  // elements into the flat gradients
  int64_t staged = 0;  // elements into the bucket's staging
};

class GradSync {
 public:
  /// tensor, data: null for groups of one. zero 0: every rank ends with all sums; 1: with those of its
  /// shards.
  GradSync(const Workload& workload, const FlatLayout& layout, const Mesh& mesh, int zero,
           int data_coordinate, Communicator* tensor, Communicator* data);

  /// Elements of scratch that bind() wants.
  int64_t staging_elements() const { return staging_elements_; }
  /// stream: where the gradients are computed; null on a CPU.
  void bind(Tensor gradients, Tensor staging, const Stream* stream = nullptr);

  /// The bucket's gradients are whole on this rank: starts their sum.
  void start(int bucket);
  /// Waits until all that was started is done; on a device it is the stream that waits.
  void finish();

 private:
  enum class Way { to_staging, to_gradients };
  void sum_replicas(int bucket);
  void copy_box(const ReplicatedPiece& piece, Way way);

  const FlatLayout& layout_;
  int zero_;
  int data_coordinate_;
  Communicator* tensor_;
  Communicator* data_;
  std::vector<ReplicatedPiece> replicated_;
  int64_t staging_elements_ = 0;
  Tensor gradients_, staging_;
  const Stream* stream_ = nullptr;
  std::vector<Transfer> under_way_;
  std::vector<int> started_;
};

/// elements [range) of a flat tensor.
Tensor slice(Tensor flat, Range range);

}  // namespace ptrain
