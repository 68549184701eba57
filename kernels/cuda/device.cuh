// What common.cuh needs of the CUDA compiler: element types, conversions, launching. Not for kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "kernels/base/runtime.h"
#include "kernels/base/stream.h"
#include "kernels/ops/context.h"

namespace ptrain::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(bf16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_float(f16 x) {
  return __half2float(x);
}

/// To nearest, ties to even.
template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline f16 from_float<f16>(float x) {
  return __float2half_rn(x);
}

/// The bits of an 8-bit float: to nearest even, saturated at the largest finite value; NaN stays NaN.
__device__ inline uint8_t to_e4m3(float x) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}
__device__ inline uint8_t to_e5m2(float x) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
}

/// *at = max(*at, value), both not negative: then their bits are ordered as they are, and the order of the
/// callers does not show.
__device__ inline void atomic_max(float* at, float value) {
  atomicMax(reinterpret_cast<int*>(at), __float_as_int(value));
}

/// *at += value, at once for all callers; with integers their order does not show.
__device__ inline void atomic_add(unsigned* at, unsigned value) {
  atomicAdd(at, value);
}
__device__ inline void atomic_add(int64_t* at, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}

/// The block's dynamic shared memory, aligned to 128 bytes.
template <class T>
__device__ inline T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  return reinterpret_cast<T*>(shared_bytes);
}

/// Enqueues a kernel on the context's stream. Arguments are converted to the kernel's parameter types.
template <class... Params, class... Args>
void launch(const Context& context, void (*kernel)(Params...), dim3 grid, int threads, int64_t shared_bytes,
            Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)) == cudaSuccess,
          ExitCode::resources, "this GPU refuses {} bytes of shared memory for a block", shared_bytes);
  }
  const auto stream = static_cast<cudaStream_t>(context.stream->native());
  kernel<<<grid, threads, static_cast<size_t>(shared_bytes), stream>>>(static_cast<Params>(args)...);
  runtime::check_launch("a kernel launch");
}

}  // namespace ptrain::cuda
