// How much of Context::scratch the CPU twins want, as a pure function, and how they cut it. Only 16-bit and
// 8-bit operands need any: they are widened to f32 block by block.
#pragma once

#include <algorithm>

#include "kernels/ops/scratch.h"

namespace ptrain::cpu {

/// Products are made of square blocks of at most this side: two widened operands and their sums.
inline constexpr int64_t widened_side = 512;
inline constexpr int64_t side_step = 16;
/// Threads that find blocks of full size; more of them share the same bytes by smaller blocks.
inline constexpr int64_t widened_slots = 16;

constexpr int64_t widened_block_bytes(int64_t side) {
  return 3 * side * side * size_bytes(DType::f32);
}

/// The largest side such that `slots` threads have their blocks in `bytes`; 0 where not even the smallest
/// fits.
constexpr int64_t side_within(int64_t bytes, int64_t slots) {
  int64_t side = widened_side;
  while (side > 0 && widened_block_bytes(side) * slots > bytes) side -= side_step;
  return side;
}

/// Side of the blocks of a product whose longest extent is `extent`, where nothing but the shape decides.
constexpr int64_t side_for(int64_t extent) {
  return std::clamp((extent + side_step - 1) / side_step * side_step, side_step, widened_side);
}

/// Blocks of the products. The widest extent of a small model bounds them.
constexpr int64_t gemm_scratch_bytes(const ScratchSizes& sizes) {
  const int64_t widest =
      std::max({sizes.N, sizes.C, 2 * sizes.F, sizes.V, (sizes.H + 2 * sizes.K) * sizes.D});
  return widened_slots * widened_block_bytes(side_for(widest));
}

/// attention_backward: gradients of keys and values of one head in f32, (T, D) each, for as many heads as
/// work at a time.
constexpr int64_t attention_slot_bytes(int64_t T, int64_t D) {
  return 2 * T * D * size_bytes(DType::f32);
}
constexpr int64_t attention_scratch_bytes(const ScratchSizes& sizes) {
  return std::min(sizes.B * sizes.K, widened_slots) * attention_slot_bytes(sizes.T, sizes.D);
}

/// embedding_backward: pairs of row numbers, sorted by id.
constexpr int64_t embedding_scratch_bytes(const ScratchSizes& sizes) {
  return sizes.N * size_bytes(DType::i64);
}

constexpr int64_t scratch_bytes(const ScratchSizes& sizes) {
  if (wide(sizes.dtype) == sizes.dtype && !sizes.is_fp8) return 0;
  return std::max(
      {gemm_scratch_bytes(sizes), attention_scratch_bytes(sizes), embedding_scratch_bytes(sizes)});
}

}  // namespace ptrain::cpu
