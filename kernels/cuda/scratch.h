// How much of Context::scratch the CUDA twins want: one pure function an op, and their maximum. An op takes
// the scratch from its start and checks that what it needs was granted. Not for what libraries allocate.
#pragma once

#include <algorithm>

#include "kernels/ops/scratch.h"

namespace ptrain::cuda {

/// Most that a matrix product's algorithm may ask for: others are not chosen.
inline constexpr int64_t gemm_workspace_bytes = int64_t{32} << 20;

/// Widest row that a norm, an activation or a linear layer of the model meets.
constexpr int64_t widest_row(const ScratchSizes& sizes) {
  return std::max({sizes.C, 2 * sizes.F, (sizes.H + 2 * sizes.K) * sizes.D, sizes.V});
}

/// rmsnorm_backward: sums of dw in f32, one row a group of rows, of at most 512 groups.
constexpr int64_t norm_scratch_bytes(const ScratchSizes& sizes) {
  return std::min<int64_t>(sizes.N, 512) * sizes.C * size_bytes(DType::f32);
}

/// layernorm_backward: the same of dw and of db.
constexpr int64_t layernorm_scratch_bytes(const ScratchSizes& sizes) {
  return 2 * norm_scratch_bytes(sizes);
}

/// linear_backward_bias: as rmsnorm_backward over a linear layer's outputs.
constexpr int64_t bias_scratch_bytes(const ScratchSizes& sizes) {
  return std::min<int64_t>(sizes.N, 512) * widest_row(sizes) * size_bytes(DType::f32);
}

/// sum_of_squares and loss_sum: one f64 a block, of at most 4096 blocks.
constexpr int64_t sum_scratch_bytes(const ScratchSizes&) {
  return 4096 * size_bytes(DType::f64);
}

/// embedding_backward: row numbers sorted by id, then two rows of f32 sums a chunk of sorted rows.
inline constexpr int64_t embedding_chunk_rows = 64;
constexpr int64_t embedding_order_bytes(int64_t N) {
  return (N * size_bytes(DType::i32) + 15) / 16 * 16;
}
constexpr int64_t embedding_backward_bytes(int64_t N, int64_t C) {
  const int64_t chunks = (N + embedding_chunk_rows - 1) / embedding_chunk_rows;
  return embedding_order_bytes(N) + 2 * chunks * C * size_bytes(DType::f32);
}
constexpr int64_t embedding_scratch_bytes(const ScratchSizes& sizes) {
  return embedding_backward_bytes(sizes.N, sizes.C);
}

/// attention_decode: into how many slices the cache of a sequence is cut, so that four blocks of threads a
/// multiprocessor of a large GPU (132 of them) have work.
constexpr int64_t decode_splits(int64_t B, int64_t K) {
  return std::clamp<int64_t>(4 * 132 / std::max<int64_t>(B * K, 1), 1, 64);
}

/// attention_decode: what every slice found, in f32. attention_backward where cuDNN serves it: dq, and dk and
/// dv of every query head before a group's are summed, in f32; what wants more is not chosen.
constexpr int64_t attention_scratch_bytes(const ScratchSizes& sizes) {
  const int64_t decode = sizes.B * sizes.H * decode_splits(sizes.B, sizes.K) * (sizes.D + 2);
  const int64_t backward = sizes.N * sizes.H * (3 * sizes.D + 4);
  return std::max(decode, backward) * size_bytes(DType::f32);
}

/// linear_quantized: what its operands' scales stand for, behind the workspace. The operands are the
/// caller's.
constexpr int64_t quantize_scratch_bytes(const ScratchSizes&) {
  return 512;
}

/// Serves every op, one at a time. Products have their workspace beside what the op around them keeps.
constexpr int64_t scratch_bytes(const ScratchSizes& sizes) {
  return gemm_workspace_bytes +
         std::max({norm_scratch_bytes(sizes), layernorm_scratch_bytes(sizes), bias_scratch_bytes(sizes),
                   sum_scratch_bytes(sizes), embedding_scratch_bytes(sizes), attention_scratch_bytes(sizes),
                   quantize_scratch_bytes(sizes)});
}

}  // namespace ptrain::cuda
