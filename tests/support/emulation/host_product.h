// A matrix product on the host as GemmKey defines it, for what takes a library's place in tests.
#pragma once

#include "kernels/cuda/gemm_plan.h"

namespace ptrain::emulation {

/// output = a b (+ bias) (+ c): sums in f32, rounded once; output has the layout of c and may be c.
void multiply(const cuda::GemmKey& key, const cuda::GemmPointers& pointers, void* output);

}  // namespace ptrain::emulation
