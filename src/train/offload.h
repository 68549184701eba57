// The optimizer's state in pinned host memory, updated by the CPU while gradients come from the device and
// parameters go there. Ren et al.: "ZeRO-Offload" (2021), section 4. For GPUs: what a CPU trains lies in host
// memory anyway.
#pragma once

#include <functional>
#include <vector>

#include "kernels/base/arena.h"
#include "kernels/base/stream.h"
#include "src/train/optimizer.h"

namespace ptrain {

/// Three buckets are under way at a time, in the order of the next forward: gradients of one come down on a
/// stream of their own, the CPU updates one, parameters of one go up on another stream. Nothing is allocated
/// after the constructor.
class OffloadedOptimizer {
 public:
  /// Takes what host_ledger_of() says and binds moments and master to `optimizer`, which stays where it is.
  /// context: the device's, with its stream and the rank's CPU threads.
  /// Errors: resources, where the host has not as much memory to pin.
  OffloadedOptimizer(Optimizer& optimizer, const FlatLayout& layout, const StateTypes& types,
                     const Context& context);
  ~OffloadedOptimizer();
  OffloadedOptimizer(const OffloadedOptimizer&) = delete;
  OffloadedOptimizer& operator=(const OffloadedOptimizer&) = delete;

  int64_t arena_bytes() const { return arena_.used_bytes(); }

  /// Parameters have changed on the device: the CPU's copies follow. The host waits.
  void read_parameters(const FlatMemory& parameters);

  /// The first gradients set out, behind what the context's stream has been given.
  void start(const FlatMemory& gradients);
  /// The rest of the step that start() began: updates every bucket of this rank and calls each(bucket) when
  /// its new parameters are there in the order of the context's stream. The host waits once a bucket.
  /// scale: (1) f64 on the host, see adamw(); where it is NaN nothing changes and `each` is not called.
  void update(const AdamWStep& step, Tensor scale, const FlatMemory& parameters, const FlatMemory& gradients,
              const std::function<void(int bucket)>& each);

 private:
  size_t place_of(size_t turn) const { return turn % fetched_.size(); }
  void fetch(size_t turn, const FlatMemory& gradients);
  void send(int bucket, const FlatMemory& parameters);

  Optimizer& optimizer_;
  Context context_, host_;
  std::vector<int> order_;  // [turn]: bucket
  Arena arena_;
  FlatMemory parameters_, gradients_;  // on the host; gradients take turns in offload_places
  Stream fetching_, sending_;
  Event ready_, sent_;          // gradients on the device; a bucket's parameters there
  std::vector<Event> fetched_;  // [place]
};

}  // namespace ptrain
