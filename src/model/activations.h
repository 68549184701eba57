// What forward leaves for backward, and the scratch of a stage: named tensors, their sizes in one table each,
// which the plan adds up and the run binds to memory.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/base/arena.h"
#include "parallel/plan/workload.h"
#include "src/model/weights.h"

namespace ptrain {

/// Sizes of a micro-batch on one rank. Letters as in ModelSpec, local where tensor parallelism cuts.
struct BlockDims {
  int64_t B = 0, T = 0;
  int64_t N = 0;           // B * T
  int64_t rows = 0;        // N, padded to a multiple of tensor * strips with sequence parallelism
  int64_t local_rows = 0;  // rows, or this rank's share with sequence parallelism
  int64_t C = 0, D = 0;
  LocalSizes local;
  int tensor = 1;  // size of the tensor group
  bool is_sequence_parallel = false;
  DType dtype = DType::f32;

  int64_t qkv_columns() const { return (local.H + 2 * local.K) * D; }
};

/// strips: see TensorGroup.
BlockDims block_dims(const ModelSpec& spec, const Mesh& mesh, int rank, int64_t B, int64_t T,
                     SequenceParallel sequence_parallel, int strips, DType dtype);

/// Kept from forward to backward, per block and micro-batch slot, or made again in memory that all slots
/// share.
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
  Tensor act;        // (rows, F) the gated product, for the weight half; only where backward runs in halves
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

/// A micro-batch's tokens on the host, N = B * T each; see MicroInput. targets: -100 = none.
struct TokenRows {
  std::span<const int32_t> ids, targets, positions, document_start;
};

/// What a stage's slots keep.
struct KeepRules {
  std::vector<Recompute> blocks;  // of each block of the stage
  bool has_halves = false;
};

/// One micro-batch under way on a stage.
struct SlotActs {
  MicroInput input;
  // blocks + 1 times (local_rows, C): input of each block, then the stage's output. The input half of
  // backward leaves the gradient of a block's output where that output was.
  std::vector<Tensor> x;
  std::vector<BlockActs> blocks;
  Tensor d;  // (local_rows, C): gradient of the output, in place down to that of the input
};

/// Shared by all micro-batches of a rank's stages: dead between its actions.
struct StageScratch {
  BlockActs again;    // of one block, what backward makes again
  Tensor whole;       // (rows, C) gathered rows; only with sequence parallelism
  Tensor partial;     // (rows, C) addends, or rows gathered for a gradient; only with sequence parallelism
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
  Tensor loss;        // (losses) f64, sums of negative log-likelihoods since clear(), see Plan::losses()
};

inline constexpr int64_t head_chunk_rows = 512;

using VisitTensor = std::function<void(std::string_view name, Tensor& tensor, Shape shape, DType dtype)>;

void visit(const BlockDims& dims, MicroInput& input, const VisitTensor& each);
void visit(const BlockDims& dims, const KeepRules& rules, SlotActs& acts, const VisitTensor& each);
/// recompute: the most that any block of the rank makes again.
void visit(const BlockDims& dims, Recompute recompute, StageScratch& scratch, const VisitTensor& each);
void visit(const BlockDims& dims, int64_t losses, HeadScratch& scratch, const VisitTensor& each);

/// Lets what a slot's block does not keep be that of `again`.
void share(Recompute recompute, const BlockActs& again, BlockActs& acts);

/// Tensors of BlockActs by name, and how the plan calls what becomes of them.
struct BlockActsRow {
  std::string_view name;
  Tensor BlockActs::*tensor;
  Recompute made_again;  // from this level on backward makes it again
  bool is_for_halves = false;
};
std::span<const BlockActsRow> block_acts_table();

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
