// Rows that a kernel keeps in registers while it sums over them: by a warp where 32 lanes hold one, by a
// block where up to 512 threads do. What the norms share; not for work without sums over a row: see rows.cuh.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "kernels/cuda/rows.cuh"

namespace ptrain::cuda {

/// Who holds a row.
enum class Owner { warp, block };
/// Whether a second tensor is added: delta in forward, dresidual in backward.
enum class Residual { none, added };

constexpr int warps_of_block = 8;  // where each warp has a row of its own
template <Owner owner>
constexpr int most_threads = owner == Owner::warp ? warps_of_block* warp_size : 512;
constexpr int64_t most_blocks = 132 * 8;

/// The place of a thread among those of its row.
template <Owner owner>
struct Team {
  int index, size;      // of threads
  int64_t first, step;  // rows of this team
  __device__ Team() {
    if constexpr (owner == Owner::warp) {
      const int warps = blockDim.x / warp_size;
      index = threadIdx.x % warp_size;
      size = warp_size;
      first = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_size;
      step = static_cast<int64_t>(gridDim.x) * warps;
    } else {
      index = threadIdx.x;
      size = blockDim.x;
      first = blockIdx.x;
      step = gridDim.x;
    }
  }
  /// Calls body(v, column) for the runs of `width` columns that this thread holds of a row of C.
  template <int vectors, int width, class Body>
  __device__ void for_each_held(int64_t C, const Body& body) const {
    for (int v = 0; v < vectors; ++v) {
      const int column = (v * size + index) * width;
      if (column < C) body(v, column);
    }
  }
  /// The sum over the team. shared: two sets of 32 floats, taken in turn by `turn`: one barrier a sum.
  __device__ float sum(float value, float (*shared)[warp_size], int turn) const {
    if constexpr (owner == Owner::warp) {
      return warp_sum(value);
    } else {
      return block_sum(value, shared[turn % 2]);
    }
  }
};

/// Adds up the sums that each warp has for its rows, such as dw, of the block's warps, in their order, and
/// leaves it in partials. dw: this thread's sums   shared: C floats, dynamic
template <int vectors, int width>
__device__ void store_warps_sums(const float (&dw)[vectors][width], int lane, int64_t C, float* partials) {
  float* shared = dynamic_shared<float>();
  const int warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
  for (int turn = 0; turn < warps; ++turn) {
    for (int v = 0; turn == warp && v < vectors; ++v) {
      const int column = (v * warp_size + lane) * width;
      for (int i = 0; i < width && column < C; ++i)
        shared[column + i] = turn == 0 ? dw[v][i] : shared[column + i] + dw[v][i];
    }
    __syncthreads();
  }
  for (int64_t c = threadIdx.x; c < C; c += blockDim.x) partials[blockIdx.x * C + c] = shared[c];
}

/// How a row is held: `vectors` runs of 16 bytes a thread; 0: in no registers.
struct Hold {
  Owner owner = Owner::block;
  int vectors = 0;
  int threads = 256;
};
/// For rows of C elements in runs of `width`. most_held: elements that a thread of a whole block may hold.
inline Hold hold_of(int64_t C, int width, int most_held = 32) {
  const int64_t runs = C / width;
  for (int vectors : {1, 2, 4})
    if (runs <= vectors * warp_size) return {Owner::warp, vectors, warps_of_block * warp_size};
  for (int vectors : {2, 4}) {
    const int64_t threads = divide_up(divide_up(runs, vectors), warp_size) * warp_size;
    if (threads <= most_threads<Owner::block> && vectors * width <= most_held)
      return {Owner::block, vectors, static_cast<int>(threads)};
  }
  return {};
}

/// Calls body.operator()<vectors, owner>().
template <class Body>
void with_hold(const Hold& hold, const Body& body) {
  if (hold.owner == Owner::warp) {
    if (hold.vectors == 1) return body.template operator()<1, Owner::warp>();
    if (hold.vectors == 2) return body.template operator()<2, Owner::warp>();
    return body.template operator()<4, Owner::warp>();
  }
  if (hold.vectors == 2) return body.template operator()<2, Owner::block>();
  body.template operator()<4, Owner::block>();
}

inline bool all_vectorizable(std::initializer_list<Tensor> tensors) {
  return std::ranges::all_of(tensors, [](Tensor x) { return !x || is_vectorizable(x); });
}

}  // namespace ptrain::cuda
