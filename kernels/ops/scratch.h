// How many bytes of Context::scratch the ops of a model want: pure, so that the plan books what the run
// takes.
#pragma once

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace ptrain {

/// The largest sizes that a rank's ops meet. Letters as everywhere: N rows of a micro-batch, C channels, F
/// feed-forward, V vocabulary, H heads, K KV heads, D head size; all local.
struct ScratchSizes {
  int64_t B = 0, T = 0, N = 0, C = 0, F = 0, V = 0, H = 0, K = 0, D = 0;
  DType dtype = DType::f32;
  bool is_fp8 = false;  // products of quantised operands
};

/// Bytes that serve every op of kernels/ops up to those sizes, one op at a time. 0 on a CPU in f32 and f64.
int64_t op_scratch_bytes(DeviceKind kind, const ScratchSizes& sizes);

}  // namespace ptrain
