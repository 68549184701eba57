// Brings parameters to where the layers read them: after an update the other data ranks' shards, while the
// next forward begins (ZeRO 1 and 2); or every unit's ahead of its use (ZeRO-3).
#pragma once

#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/plan/places.h"
#include "parallel/run/flat_memory.h"
#include "parallel/run/tracer.h"

namespace ptrain {

class ParamSync {
 public:
  /// data: null for a group of one.
  ParamSync(const Plan& plan, const FlatLayout& layout, int data_coordinate, Communicator* data);
  /// owned: what this rank updates. read: where the layers read; holds the same elements where ZeRO is
  /// below 3.
  void bind(FlatMemory owned, FlatMemory read);

  /// The rank's own parameters have changed: starts bringing the others, in the order of the next forward.
  void start();
  /// The same bucket by bucket, all of exchange_order() in its order.
  void start(int bucket);
  /// Returns when the unit's parameters can be read, on a device in the order of its stream. `next`: the unit
  /// that will be read next, or -1: under ZeRO-3 its parameters set out.
  void need(int64_t unit, int64_t next);
  /// Waits for everything that start() started.
  void finish();
  /// Notes what sets out from here on with `tracer`, as "gather"; look() does so for what has come although
  /// nobody has waited for it, and so does need(). Null: none.
  void set_tracer(Tracer* tracer) { tracer_ = tracer; }
  /// Notes what it waits for. Null: nowhere.
  void set_op_ring(OpRing* ops) { ops_ = ops; }
  void look();

 private:
  void gather(int bucket);

  const FlatLayout& layout_;
  int zero_;
  int data_coordinate_;
  Communicator* data_;
  FlatMemory owned_, read_;
  Residency residency_;
  std::vector<int> order_, bucket_of_;      // exchange order; [unit]
  std::vector<WatchedTransfer> under_way_;  // [bucket]
  Tracer* tracer_ = nullptr;
  OpRing* ops_ = nullptr;
};

}  // namespace ptrain
