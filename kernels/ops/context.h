// What an op needs beside its tensors. First argument of every op.
#pragma once

#include "kernels/base/tensor.h"

namespace ptrain {

struct Context {
  Device device;
  int threads = 1;  // CPU threads of this rank
  Tensor scratch;   // (bytes) u8, granted by the plan; an op that needs some says how much in its header
};

/// What becomes of the old value of an output: replaced, or added to.
enum class Write { overwrite, accumulate };

}  // namespace ptrain
