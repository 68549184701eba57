// A matrix product of any shape on a GPU. gemm_plan.cpp asks cuBLASLt for it; the emulation of the tests
// computes it as GemmKey defines it. Not for callers outside of kernels/cuda.
#pragma once

#include "kernels/cuda/gemm_key.h"
#include "kernels/ops/context.h"

namespace ptrain::cuda {

/// What a product reads and writes; c is in place.
struct GemmPointers {
  const void *a = nullptr, *b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;  // (m) of the dtype of c; null without
  // (1) f32 each: what one of 8-bit elements stands for. Null for other operands.
  const float *a_factor = nullptr, *b_factor = nullptr;
};

/// Enqueues c = a b (+ bias) (+ c). How that is done is decided at a shape's first call: then descriptors are
/// made and an algorithm is chosen by the library's own estimate or, unless options or a capture under way
/// forbid it, by trying, for which the host waits.
/// Errors (resources): the library has no algorithm for the shape; (usage): 8-bit operands on a GPU without
/// such products.
void run_product(Context& context, const GemmKey& key, const GemmPointers& pointers);

}  // namespace ptrain::cuda
