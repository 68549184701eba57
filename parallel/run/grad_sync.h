// Sums gradients over the mesh: addends of tensor replicas first, then over the data axis. Either bucket by
// bucket while the last backward still runs; or unit by unit in every micro-batch, into shards of sums, or as
// a tree over micro-batches and ranks.
#pragma once

#include <vector>

#include "kernels/ops/context.h"
#include "parallel/plan/places.h"
#include "parallel/run/replica_sums.h"
#include "parallel/run/tracer.h"
#include "parallel/run/tree_sum.h"

namespace ptrain {

class GradSync {
 public:
  /// tensor, data: null for groups of one.
  GradSync(const Plan& plan, const FlatLayout& layout, int data_coordinate, Communicator* tensor,
           Communicator* data);

  int64_t staging_elements() const { return replicas_.staging_elements(); }
  /// Buffers of all gradients that bind() wants for the tree over micro-batches; 0 without one.
  int levels() const { return has_tree() ? tree_.levels() : 0; }
  /// written: where backward adds a unit's gradients. summed: where their sums end, all of them or the shards
  /// of this rank; the same memory as `written` where a step's gradients add up in one buffer.
  /// stream: where the gradients are computed; null on a CPU.
  void bind(FlatMemory written, FlatMemory summed, Tensor staging, const Context& context,
            std::vector<Tensor> levels = {});

  /// The step's gradients of a bucket are whole on this rank: starts their sum.
  void start(int bucket);

  /// With gradients by unit: before a micro-batch adds to them, zeroes the unit's place; when they are whole,
  /// starts their sum, which is added to the step's sums in the order of micro-batches, or waits for the
  /// others of its tree.
  void open(int bucket);
  void close(int bucket);

  /// Waits until all that was started is done; on a device it is the stream that waits. The rank then has the
  /// sums of its shards.
  void finish();
  /// Notes sums over the data axis with `tracer`, as "reduce"; look() does so for those that are done
  /// although nobody has waited for them, and so does close(). Null: none.
  void set_tracer(Tracer* tracer) { tracer_ = tracer; }
  /// Notes what it waits for. Null: nowhere.
  void set_op_ring(OpRing* ops) { ops_ = ops; }
  void look();
  /// ZeRO-0, after finish(): every rank gets all sums.
  void gather();

 private:
  struct UnderWay {
    WatchedTransfer transfer;
    int bucket = -1;
  };
  bool has_tree() const { return !closed_.empty(); }
  WatchedTransfer start_sum(int bucket, const FlatMemory& memory);
  Tensor own_shard(const FlatMemory& memory, int bucket) const;
  void retire(UnderWay& place);

  const FlatLayout& layout_;
  int zero_;
  int data_coordinate_;
  Communicator* data_;
  ReplicaSums replicas_;
  SumOrder order_;
  std::vector<int> place_of_;  // [bucket], with gradients by unit
  TreeSum tree_;
  std::vector<int> closed_;  // [bucket], with a tree: micro-batches of the step so far
  int micros_;
  FlatMemory written_, summed_;
  Context context_;
  std::vector<WatchedTransfer> under_way_;  // of start()
  std::vector<int> started_;
  std::vector<UnderWay> places_;  // of close()
  Tracer* tracer_ = nullptr;
  OpRing* ops_ = nullptr;
};

}  // namespace ptrain
