// Gradients of weights that lie on several ranks of a tensor group: each rank holds an addend, they are
// summed before the sum over the data axis.
#pragma once

#include <vector>

#include "kernels/base/stream.h"
#include "parallel/comm/communicator.h"
#include "parallel/plan/flat.h"
#include "parallel/run/flat_memory.h"

namespace ptrain {

class ReplicaSums {
 public:
  /// tensor: null for a group of one.
  ReplicaSums(const Workload& workload, const FlatLayout& layout, const Mesh& mesh, Communicator* tensor);

  /// Elements of scratch that bind() wants: one bucket's.
  int64_t staging_elements() const { return staging_elements_; }
  /// stream: where the gradients are computed; null on a CPU.
  void bind(Tensor staging, const Stream* stream);
  /// Sums a bucket's weights with one all-reduce. `gradients` holds the bucket.
  void sum(int bucket, const FlatMemory& gradients) const;

 private:
  /// A weight whose copies on the ranks of a tensor group hold addends of its gradient.
  struct ReplicatedPiece {
    int bucket = 0;
    Shape shape;         // global
    Box box;             // local
    Range elements;      // of the flat layout
    int64_t staged = 0;  // elements into the bucket's staging
  };
  enum class Way { to_staging, to_gradients };
  void copy_box(const ReplicatedPiece& piece, Tensor gradients, Way way) const;

  Communicator* tensor_;
  std::vector<ReplicatedPiece> replicated_;
  int64_t staging_elements_ = 0;
  Tensor staging_;
  const Stream* stream_ = nullptr;
};

}  // namespace ptrain
