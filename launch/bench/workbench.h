// Where ops are measured: tensors with made-up contents on the rank's device, and scratch for the ops. Not
// for timing, see timing.h.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/ops/context.h"
#include "kernels/ops/scratch.h"
#include "launch/bench/timing.h"
#include "src/model/spec.h"
#include "src/train/config_plan.h"

namespace ptrain::bench {

class Workbench;

/// The tensors of one call; they go together.
class Tensors {
 public:
  explicit Tensors(Workbench& bench) : bench_(bench) {}

  Tensor zeros(Shape shape, DType dtype);
  /// Numbers between -1 and 1; of 8 bits: all values that the type has.
  Tensor random(Shape shape, DType dtype);
  /// value(0), value(1), …   (count) i32
  Tensor integers(int64_t count, const std::function<int64_t(int64_t)>& value);
  /// The values of a host tensor of the same dtype.
  Tensor copy_of(Tensor host);

  int64_t bytes() const;

 private:
  Workbench& bench_;
  std::vector<OwnedTensor> owned_;
};

/// Makes the tensors of a call and returns it.
using Prepare = std::function<Call(Tensors&)>;

class Workbench {
 public:
  /// `sizes`: the largest that the ops will meet, for their scratch. `ballast_bytes`: see Stopwatch.
  Workbench(const Context& context, const ScratchSizes& sizes, int64_t ballast_bytes = beyond_cache_bytes);

  Context& context() { return context_; }
  Stopwatch& stopwatch() { return stopwatch_; }

  /// Seconds of a call, see Stopwatch. On a GPU the tensors are made as often as fills its cache several
  /// times.
  double seconds(const Prepare& prepare, double budget_s = 0.15);

  /// Numbers between -1 and 1 on the device, longer than any short period.   (n) dtype
  Tensor random_block(DType dtype);

 private:
  Context context_;
  OwnedTensor scratch_;
  Stopwatch stopwatch_;
  std::map<DType, OwnedTensor> blocks_;
};

/// Copies between host and device and waits; contiguous, equal dtypes and sizes.
void transfer_now(const Context& context, Tensor from, Tensor to);

/// Writes `block` again and again over `to`, beginning with its element `first`. Contiguous, equal dtypes.
void tile(const Context& context, Tensor block, int64_t first, Tensor to);

/// The sizes of a model's ops on one rank, for B rows of T tokens.
ScratchSizes sizes_of(const ModelSpec& spec, int64_t B, int64_t T, const Compute& compute);

}  // namespace ptrain::bench
