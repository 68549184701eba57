// What the ops of a device want of Context::scratch.
#include "kernels/ops/scratch.h"

#include "kernels/cpu/scratch.h"
#include "kernels/cuda/scratch.h"

namespace ptrain {

int64_t op_scratch_bytes(DeviceKind kind, const ScratchSizes& sizes) {
  return kind == DeviceKind::cpu ? cpu::scratch_bytes(sizes) : cuda::scratch_bytes(sizes);
}

}  // namespace ptrain
