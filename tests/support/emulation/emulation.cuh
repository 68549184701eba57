// What common.cuh needs where kernels are compiled as host C++: the CUDA compiler's names, element types,
// launching into an emulated stream. Blocks run one after another, their threads as fibers in random order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/base/stream.h"
#include "kernels/cpu/convert.h"
#include "kernels/ops/context.h"
#include "tests/support/emulation/fibers.h"

// Words of CUDA C++ that mean nothing on a host, or its nearest.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // blocks run one after another; a rank's device lives on one thread
#define threadIdx (::ptrain::emulation::this_thread().thread)
#define blockIdx (::ptrain::emulation::this_thread().block)
#define blockDim (::ptrain::emulation::this_thread().block_size)
#define gridDim (::ptrain::emulation::this_thread().grid)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline void __syncthreads(std::source_location place = std::source_location::current()) {
  ptrain::emulation::block_barrier(place);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  ptrain::emulation::warp_exchange(mask, nullptr, 0, [](const ptrain::emulation::Lanes&) {});
}

/// Lane `from` of the caller's warp gives its value; a lane outside the mask, or outside the warp, its own.
template <class T>
T shuffle(unsigned mask, T value, int from) {
  T result = value;
  ptrain::emulation::warp_exchange(mask, &value, sizeof value, [&](const ptrain::emulation::Lanes& lanes) {
    if (from >= 0 && from < 32 && (mask >> from & 1u)) std::memcpy(&result, lanes.of(from), sizeof result);
  });
  return result;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  return shuffle(mask, value, ptrain::emulation::lane() ^ lane_mask);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  return shuffle(mask, value, from & 31);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta) {
  return shuffle(mask, value, ptrain::emulation::lane() + delta);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta) {
  return shuffle(mask, value, ptrain::emulation::lane() - delta);
}

inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
inline float __expf(float x) {
  return std::exp(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
using std::isfinite;

namespace ptrain::cuda {

using bf16 = cpu::BFloat16;
using f16 = cpu::Float16;

inline float to_float(float x) {
  return x;
}
inline float to_float(bf16 x) {
  return cpu::widen(x);
}
inline float to_float(f16 x) {
  return cpu::widen(x);
}
template <class T>
inline T from_float(float x) {
  return cpu::convert<T>(x);
}

inline uint8_t to_e4m3(float x) {
  return cpu::to_float8_e4m3(x).bits;
}
inline uint8_t to_e5m2(float x) {
  return cpu::to_float8_e5m2(x).bits;
}

inline void atomic_max(float* at, float value) {
  *at = std::max(*at, value);
}

inline void atomic_add(unsigned* at, unsigned value) {
  *at += value;
}
inline void atomic_add(int64_t* at, int64_t value) {
  *at += value;
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::this_thread().dynamic_shared);
}

template <class... Params, class... Args>
void launch(const Context& context, void (*kernel)(Params...), dim3 grid, int threads, int64_t shared_bytes,
            Args... args) {
  const emulation::Size blocks{grid.x, grid.y, grid.z};
  emulation::enqueue(context.stream->native(), [=] {
    emulation::run_grid(blocks, static_cast<unsigned>(threads), shared_bytes,
                        [&] { kernel(static_cast<Params>(args)...); });
  });
}

}  // namespace ptrain::cuda
