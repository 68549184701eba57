// What an op needs beside its tensors. First argument of every op.
#pragma once

#include "kernels/base/tensor.h"

namespace ptrain {

class Stream;
class Libraries;

struct Context {
  Device device;
  int threads = 1;  // CPU threads of this rank
  Tensor scratch;   // (bytes) u8 on the device, granted by the plan: see scratch.h
  const Stream* stream =
      nullptr;  // where a GPU's ops are enqueued; null on a CPU, whose ops are done at return
  Libraries* libraries = nullptr;    // a GPU's handles and choices: see libraries.h; null on a CPU
  bool is_thread_invariant = false;  // products have the same bits for any number of threads: see gemm.h
};

/// What becomes of the old value of an output: replaced, or added to.
enum class Write { overwrite, accumulate };

}  // namespace ptrain
