// The vocabulary of every hand-written kernel: element types and their conversion, 16-byte vectors,
// reductions over a warp and a block, and the one way to launch. The tests compile the same kernels as host
// C++: then emulation.cuh of the tests takes the place of the compiler's own names. A kernel keeps to what is
// declared here, in matrix.cuh, and to threadIdx, blockIdx, blockDim, gridDim, __syncthreads, __syncwarp and
// __shfl_*_sync.
#pragma once

#include <cfloat>
#include <cstdint>

#include "kernels/ops/context.h"

#ifdef PTRAIN_EMULATED
#include "emulation.cuh"  // of the tests, on their include path
#else
#include "kernels/cuda/device.cuh"
#endif

namespace ptrain::cuda {

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;

constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// `width` elements that are read and written with one access of up to 16 bytes; the address must be a
/// multiple of the vector's size.
template <class T, int width>
struct alignas(sizeof(T) * width) Vector {
  T at[width];
};

/// Elements of T in 16 bytes.
template <class T>
constexpr int vector_width = static_cast<int>(16 / sizeof(T));

template <class T>
__device__ inline Vector<T, vector_width<T>> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, vector_width<T>>*>(from);
}
template <class T>
__device__ inline void store_vector(T* to, const Vector<T, vector_width<T>>& value) {
  *reinterpret_cast<Vector<T, vector_width<T>>*>(to) = value;
}

/// Host: whether rows of x may be read by vectors.
inline bool is_vectorizable(Tensor x) {
  const int64_t bytes = size_bytes(x.dtype);
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.columns() * bytes % 16 == 0 &&
         x.row_stride * bytes % 16 == 0;
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
  static constexpr float neutral = 0;
};
struct Max {
  __device__ float operator()(float a, float b) const { return a > b ? a : b; }
  static constexpr float neutral = -INFINITY;
};

/// The reduced value on every lane.
template <class Op>
__device__ inline float warp_reduce(float value, Op op) {
  for (int offset = warp_size / 2; offset > 0; offset /= 2)
    value = op(value, __shfl_xor_sync(all_lanes, value, offset));
  return value;
}

/// The reduced value on every thread of a block whose size is a multiple of 32.   shared: 32 floats, free
/// again after a barrier that the caller's next use of it must pass.
template <class Op>
__device__ inline float block_reduce(float value, Op op, float* shared) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
  value = warp_reduce(value, op);
  __syncthreads();  // the last use of `shared` is over
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? shared[lane] : Op::neutral, op);
}

/// Calls body.operator()<T>() with the element type of a float dtype that the device computes with.
template <class Body>
void with_element(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::bf16:
      return body.template operator()<bf16>();
    case DType::f16:
      return body.template operator()<f16>();
    default:
      fail(ExitCode::defect, "a GPU computes in f32, bf16 and f16, not in {}", name_of(dtype));
  }
}

/// The elements of a tensor as the kernels' type.
template <class T>
T* elements(Tensor x) {
  check(size_bytes(x.dtype) == static_cast<int64_t>(sizeof(T)), "a tensor of {} read as {} bytes an element",
        name_of(x.dtype), sizeof(T));
  return static_cast<T*>(x.data);
}

}  // namespace ptrain::cuda
