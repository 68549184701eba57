// AdamW over a stage's flat buffers: which elements this rank updates, their moments, the gradient norm.
#pragma once

#include <vector>

#include "kernels/ops/adamw.h"
#include "parallel/plan/flat.h"
#include "src/model/weights.h"

namespace ptrain {

/// The part of a bucket that this rank updates.
struct UpdateRange {
  Range elements;     // of the flat buffers
  int64_t state = 0;  // first element of its moments
  Range segments;     // that lie in it
};

/// A run of elements of one weight that this rank updates.
struct UpdateSegment {
  int weight = 0;     // index into the stage's placed weights
  Range elements;     // of the flat buffers
  int64_t state = 0;  // first element of its moments
  bool decays = true;
};

class Optimizer {
 public:
  /// zero 0: this rank updates everything; else its shard of each bucket.
  Optimizer(const FlatLayout& layout, const std::vector<PlacedWeight>& placed, int zero, int data_coordinate);

  /// Elements of each of the two moments.
  int64_t state_elements() const { return state_elements_; }
  /// master: (state_elements) of adamw()'s kinds, or empty
  void bind(Tensor m, Tensor v, Tensor master);
  Tensor m() const { return m_; }
  Tensor v() const { return v_; }
  Tensor master() const { return master_; }
  const std::vector<UpdateSegment>& segments() const { return segments_; }
  /// [bucket]
  const std::vector<UpdateRange>& ranges() const { return ranges_; }

  /// Sum of squares of the gradients that this rank counts, each element once over the mesh.
  /// Added to `sum`: (1) f64.
  void sum_of_squares(Context& context, const FlatMemory& gradients, Tensor sum) const;
  /// The same in integers, whatever the order; see exact_sum.h.   bins: (256, 2) i64
  void exact_sum_of_squares(Context& context, const FlatMemory& gradients, Tensor bins) const;
  /// Updates this rank's segments.   scale: see adamw()
  void update(Context& context, const AdamWStep& step, Tensor scale, const FlatMemory& parameters,
              const FlatMemory& gradients) const;
  /// The same for the segments of one bucket.
  void update_bucket(Context& context, int bucket, const AdamWStep& step, Tensor scale,
                     const FlatMemory& parameters, const FlatMemory& gradients) const;

 private:
  std::vector<UpdateRange> ranges_;
  std::vector<UpdateSegment> segments_;
  std::vector<Range> counted_;
  int64_t state_elements_ = 0;
  Tensor m_, v_, master_;
};

}  // namespace ptrain
