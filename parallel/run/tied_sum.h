// The tied embedding's gradient where first and last stage have a copy each: after the sums over the data
// axis either end adds the other's, shard by shard, so that both copies stay equal.
#pragma once

#include "kernels/ops/context.h"
#include "parallel/comm/communicator.h"
#include "parallel/plan/plan.h"
#include "parallel/run/flat_memory.h"

namespace ptrain {

class TiedSum {
 public:
  /// pipeline: null for a group of one.
  TiedSum(const Plan& plan, const FlatLayout& layout, int rank, Communicator* pipeline);

  /// Elements of memory that bind() wants for the other end's shard.
  int64_t received_elements() const { return ends_.peer < 0 ? 0 : shard_.count; }
  void bind(FlatMemory summed, Tensor received) {
    summed_ = std::move(summed);
    received_ = received;
  }
  /// Own + other, the same bits at both ends.
  void run(Context& context);

 private:
  TiedEnds ends_;
  Range shard_, other_;  // of the flat layout; other_: where both copies are on this rank
  Communicator* pipeline_;
  FlatMemory summed_;
  Tensor received_;
};

}  // namespace ptrain
