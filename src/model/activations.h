// What forward leaves for backward, and the scratch of a stage: named tensors, their sizes in one table each,
// which the plan adds up and the run binds to memory.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "kernels/base/arena.h"
#include "src/model/weights.h"

namespace ptrain {

/// Sizes of a micro-batch on one rank. Letters as in ModelSpec, local where tensor parallelism cuts.
struct BlockDims {
  int64_t B = 0, T = 0;
  int64_t N = 0;           // B * T
  int64_t rows = 0;        // N, padded to a multiple of the tensor group's size with sequence parallelism
  int64_t local_rows = 0;  // rows, or this rank's share with sequence parallelism
  int64_t C = 0, D = 0;
  LocalSizes local;
  int tensor = 1;  // size of the tensor group
  bool is_sequence_parallel = false;
  DType dtype = DType::f32;

  int64_t qkv_columns() const { return (local.H + 2 * local.K) * D; }
};

BlockDims block_dims(const ModelSpec& spec, const Mesh& mesh, int rank, int64_t B, int64_t T,
                     SequenceParallel sequence_parallel, DType dtype);

/// Kept from forward to backward, per block and micro-batch slot.
struct BlockActs {
  Tensor h_1;        // (local_rows, C) after the first norm
  Tensor rstd_1;     // (local_rows) f32 (f64 for f64), as rstd_2 and lse
  Tensor qkv;        // (rows, (H + 2K) D), q and k rotated
  Tensor attention;  // (rows, H D)
  Tensor lse;        // (B, H, T)
  Tensor x_2;        // (local_rows, C) after the attention's residual
  Tensor h_2;        // (local_rows, C) after the second norm
  Tensor rstd_2;     // (local_rows)
  Tensor gate_up;    // (rows, 2F); backward leaves its gradient there
};

/// A micro-batch's tokens as the layers read them.
struct MicroInput {
  Tensor ids;             // (rows) i32; rows beyond N are 0
  Tensor positions;       // (rows) i32
  Tensor document_start;  // (N) i32
  Tensor supervised;      // (rows) i32, of which num_supervised: the rows that have a target, ascending
  Tensor targets;         // (rows) i32, likewise: their targets
  int64_t num_supervised = 0;
  bool has_documents = true;  // false: every document_start is 0
};

/// One micro-batch under way on a stage.
struct SlotActs {
  MicroInput input;
  std::vector<Tensor> x;  // blocks + 1 times (local_rows, C): input of each block, then the stage's output
  std::vector<BlockActs> blocks;
  Tensor d;  // (local_rows, C): gradient of the output, in place down to that of the input
};

/// Shared by all micro-batches of a stage: dead between its actions.
struct StageScratch {
  Tensor whole;       // (rows, C) gathered rows; only with sequence parallelism
  Tensor partial;     // (rows, C) addends; only with sequence parallelism
  Tensor branch;      // (local_rows, C) a branch's output, later the gradient of its input
  Tensor act;         // (rows, F)
  Tensor dact;        // (rows, F)
  Tensor dqkv;        // (rows, (H + 2K) D)
  Tensor dattention;  // (rows, H D)
  Tensor delta;       // (B, H, T) f32 (f64 for f64)
};

/// The last stage's, for chunks of at most `head_chunk_rows` supervised rows.
struct HeadScratch {
  Tensor h;           // (local_rows, C) after the final norm
  Tensor rstd;        // (local_rows)
  Tensor whole;       // (rows, C) gathered rows of h; only with sequence parallelism
  Tensor selected;    // (chunk, C)
  Tensor logits;      // (chunk, V)
  Tensor statistics;  // (chunk, 3) f32 (f64 for f64), as rstd and parts
  Tensor parts;       // (tensor, chunk, 3)
  Tensor loss;        // (1) f64, sum of negative log-likelihoods since the stage's clear()
};

inline constexpr int64_t head_chunk_rows = 512;

using VisitTensor = std::function<void(std::string_view name, Tensor& tensor, Shape shape, DType dtype)>;

void visit(const BlockDims& dims, MicroInput& input, const VisitTensor& each);
void visit(const BlockDims& dims, int blocks, SlotActs& acts, const VisitTensor& each);
void visit(const BlockDims& dims, StageScratch& scratch, const VisitTensor& each);
void visit(const BlockDims& dims, HeadScratch& scratch, const VisitTensor& each);

/// Takes every tensor of a table from the arena, its names behind `prefix`.
VisitTensor take_from(Arena& arena, std::string prefix);
/// Adds up what the arena will give.
VisitTensor add_up(int64_t& bytes);

/// A whole table: calls the visitor with each of its tensors.
using VisitTable = std::function<void(const VisitTensor&)>;
/// Binds every tensor of a table to memory that begins at `data` and is as large as add_up() says.
void bind_table(const VisitTable& table, void* data, Device device);
/// The same in host memory of its own, from which `device` copies while the host goes on.
Buffer bind_host(const VisitTable& table, Device device);

}  // namespace ptrain
