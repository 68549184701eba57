// Instructions of the matrix units and asynchronous copies, behind functions that the tests' host twins
// replace: for kernels that multiply tiles in shared memory. Not for whole matrix products: see
// kernels/ops/gemm.h.
// Letters: a lane of a warp is 4 * g + t, g its group 0 .. 7, t its place 0 .. 3.
#pragma once

#include "kernels/cuda/common.cuh"

#ifdef PTRAIN_EMULATED
#include "matrix_emulated.cuh"  // of the tests, on their include path
#else

namespace ptrain::cuda {

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/// Two numbers rounded to T, the first in the low half.
template <class T>
__device__ inline uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<bf16>(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <>
__device__ inline uint32_t pack<f16>(float low, float high) {
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

/// c (16, 8) += a (16, 16) times b (16, 8), by a whole warp; T is bf16 or f16.
/// a[0], a[1]: columns 2t, 2t + 1 of rows g and g + 8   a[2], a[3]: the same of columns 2t + 8, 2t + 9
/// b0: rows 2t, 2t + 1 of column g   b1: rows 2t + 8, 2t + 9
/// c[0], c[1]: row g of columns 2t, 2t + 1   c[2], c[3]: row g + 8
template <class T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ inline void mma<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void mma<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Four 8 x 8 matrices of 16-bit elements out of shared memory, by a whole warp. Lane i names row i % 8 of
/// matrix i / 8: 16 bytes, aligned to 16. to[j]: columns 2t, 2t + 1 of row g of matrix j.
__device__ inline void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same matrices transposed: to[j]: rows 2t, 2t + 1 of column g of matrix j.
__device__ inline void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

/// Starts a copy of 4 or 16 bytes from global to shared memory, both aligned to their size; zeros instead
/// where it `is_there` not (then nothing is read). Seen by this thread after wait_for_copies, by others after
/// a barrier behind it.
template <int bytes>
__device__ inline void copy_async(void* shared, const void* global, bool is_there) {
  const int read = is_there ? bytes : 0;
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(read)
                 : "memory");
  } else {
    static_assert(bytes == 4);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(read)
                 : "memory");
  }
}
/// Closes a group: the copies that this thread started since the last.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits for this thread's groups but for the last `pending`.
template <int pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// 2 to the x, to 2 units in the last place.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace ptrain::cuda

#endif
