// Sums what comes one after another, a micro-batch's gradients after those before, as a tree: neighbours in
// pairs, level by level, a leftover passes up. Over the ranks of the data axis SumOrder::tree goes on: where
// each rank sums 2^a micro-batches, rank r those from r * 2^a on, the sum is the tree over the global index,
// whatever the number of ranks. Not for sums in ascending order, which need no memory.
#pragma once

#include <vector>

#include "kernels/ops/context.h"
#include "parallel/plan/layout.h"
#include "parallel/plan/sum_tree.h"

namespace ptrain {

class TreeSum {
 public:
  /// addends: of every region and step.   regions: ranges of flat buffers that are summed each by itself, at
  /// different times; they must not overlap.
  TreeSum(int addends, std::vector<Range> regions);

  /// Buffers that bind() wants, none for a single addend.
  int levels() const { return sum_tree_levels(addends_); }
  /// levels: contiguous, (elements) each, of the addends' dtype and device; all regions must lie within.
  void bind(std::vector<Tensor> levels);

  /// Adds addend number `micro` of a region, each region's from 0 on in ascending order and after the last
  /// from 0 again. Returns true with the last one: then `ready` is the region's sum. Else what `ready` holds
  /// is no longer of use: the next addend is computed from scratch, anywhere. ready: contiguous, as many
  /// elements as the region. Sums run in the dtype of the tensors. Errors (defect): another addend than the
  /// next, tensors that do not fit.
  bool add(Context& context, int region, int micro, Tensor ready);

 private:
  int addends_;
  std::vector<Range> regions_;
  std::vector<int> next_;  // addend, of each region
  std::vector<Tensor> levels_;
};

}  // namespace ptrain
