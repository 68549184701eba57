// What a plan must know of a model and of the user's choice: plain structs, made by src/model/spec and
// src/train/config. Not for models themselves: nothing here knows a family or a layer's arithmetic.
// Letters: N = B * T rows of a micro-batch, C channels, T row length.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "parallel/plan/layout.h"

namespace ptrain {

/// A weight of a unit. Neighbours with one non-zero `fusion` number lie side by side in memory (one product).
struct UnitPiece {
  Piece piece;
  int fusion = 0;
  bool is_tied_copy = false;  // the last stage's own copy of the embedding: never counted, never saved
};

/// What backward makes again instead of keeping it. selective: what the norms leave, cheap to make; full:
/// everything of a block but its input.
enum class Recompute : uint8_t { none, selective, full };
std::string_view name_of(Recompute recompute);

/// How the rows of an activation lie over a tensor group.
enum class Rows : uint8_t {
  all,    // every tensor rank holds all N rows, padded to a multiple of tensor * strips with sequence
          // parallelism
  exact,  // the same without the padding
  share,  // a tensor rank holds its share of every strip (sequence parallel)
  time    // T rows: one for each position of a row of tokens
};

/// A tensor of N rows, kept from forward to backward, passed between stages, or scratch.
struct RowTensor {
  std::string name;     // "qkv"
  int64_t columns = 0;  // elements of one row, before any cut
  DType dtype = DType::f32;
  Rows rows = Rows::all;
  std::optional<Split> split;  // of the columns over the tensor axis (dim 0 = columns); empty = whole rows
  int64_t max_rows = 0;        // no more rows than this (a chunk of the head's logits); 0 = no bound
  bool is_from_each_rank = false;          // gathered: as much again for each tensor rank
  bool joins_next = false;                 // lies side by side with the next of its list, in one grant
  Recompute made_again = Recompute::none;  // of what is kept: from this level on backward makes it again
  bool is_for_halves = false;              // of what is kept: only where backward runs in halves
};

/// Whether a slot keeps this tensor from forward to backward, and whether backward makes it again in memory
/// that all slots share; neither: it is not there.
inline bool is_kept(const RowTensor& tensor, Recompute recompute, bool has_halves) {
  return (has_halves || !tensor.is_for_halves) &&
         (tensor.made_again == Recompute::none || recompute < tensor.made_again);
}
inline bool is_made_again(const RowTensor& tensor, Recompute recompute) {
  return tensor.made_again != Recompute::none && recompute >= tensor.made_again;
}

enum class CollectiveKind : uint8_t { all_reduce, all_gather, reduce_scatter };
std::string_view name_of(CollectiveKind kind);

/// One collective over the tensor axis for each strip of a micro-batch. It is started; before the next one of
/// the unit is, it has been waited for.
struct UnitCollective {
  std::string name;
  CollectiveKind kind = CollectiveKind::all_reduce;
  bool is_backward = false;
  bool is_made_again = false;  // of a forward's: full recompute runs it once more
  bool is_of_weights = false;  // of a backward's: in the weight half
  bool is_for_halves = false;  // of the weight half: what the whole backward does not have to gather twice
  bool is_ahead = false;       // starts beside the one before, and is waited for after the next has started
  int64_t columns = 0;         // elements of a row of the whole tensor (all_gather: the gathered one)
  DType dtype = DType::f32;
  // FLOPs per row over all tensor ranks that it may hide under: of the product of its own rows, all strips
  // but one; and of products that do not need them, in the weight half or the whole backward.
  double product_flops = 0, beside_flops = 0;
};

/// table: the last stage's copy of a tied embedding; the head computes with it.
enum class UnitKind : uint8_t { embedding, block, head, table };

/// What is never cut between stages: the embedding, a block, the head with final norm and loss, its table.
struct Unit {
  std::string name;  // "block 3"
  UnitKind kind = UnitKind::block;
  std::vector<UnitPiece> pieces;
  double forward_flops = 0;        // per row of a micro-batch, over all tensor ranks
  double backward_flops = 0;       // likewise, input and weights
  double again_flops = 0;          // likewise, what full recompute adds to backward
  std::vector<RowTensor> kept;     // per slot: what forward leaves for backward
  std::vector<RowTensor> scratch;  // while the unit runs; units of one kind on a stage share the largest
  int64_t scratch_bytes = 0;       // likewise, independent of the rows
  std::vector<UnitCollective> collectives;
};

struct Workload {
  std::string name;                  // of the model, for people
  std::vector<Unit> units;           // embedding, blocks, head, its copy of a tied table
  std::vector<RowTensor> inputs;     // per slot of every stage: the micro-batch's tokens
  std::vector<RowTensor> tables;     // once a stage, read by all its units (angles of the positions)
  std::vector<RowTensor> boundary;   // the bundle that passes from stage to stage; its gradient comes back
  int64_t op_scratch_bytes = 0;      // once a rank: what the device's ops want beside their tensors
  int64_t heads = 1;                 // query heads, which the tensor axis must divide
  double model_flops_per_token = 0;  // the convention behind MFU: 6 * matmul parameters + 6 * L * T * H * D
};

enum class ScheduleName : uint8_t { gpipe, one_f_one_b, interleaved, zero_bubble };
std::string_view name_of(ScheduleName name);

/// Where the optimizer's state lies: with the weights, or in host memory, updated by the CPU.
enum class Offload : uint8_t { none, optimizer };

/// Element types of what the optimizer and its neighbours hold.
struct StateTypes {
  DType param = DType::f32;
  DType grad = DType::f32;
  DType reduce = DType::f32;
  DType master = DType::f32;  // no master copy where it equals param; i16 = the 16 bits below a bf16 param
  DType moments = DType::f32;
};

/// Strips that the rows of a micro-batch are cut into inside a tensor group, at most.
inline constexpr int max_tensor_strips = 4;

inline constexpr int64_t all_blocks = int64_t{1} << 40;

/// The user's choice, everything resolved (no auto).
struct ParallelConfig {
  int tensor = 1;
  int pipeline = 1;
  int data = 1;
  int virtual_stages = 1;  // stages a position; with zero_bubble 1 = H1, 2 = ZB-V
  ScheduleName schedule = ScheduleName::one_f_one_b;
  bool is_sequence_parallel = false;
  int tensor_strips = 1;  // of a micro-batch's rows: one is multiplied while another is summed or gathered
  int zero = 1;           // 0 | 1 | 2 | 3
  int64_t micro = 1;      // rows of tokens a micro-batch and data rank
  int64_t global = 1;     // rows of tokens an optimizer step
  int64_t sequence_length = 1;
  StateTypes types;
  Recompute recompute = Recompute::none;
  int64_t recompute_blocks = all_blocks;  // of each stage, its first ones; the others keep everything
  Offload offload = Offload::none;
  bool saves_behind = false;          // while training goes on: from a copy of the state in host memory
  bool is_grid_invariant = false;     // the same bits for every pipeline and data split: sums run in a tree
  int64_t bucket_elements = 8 << 20;  // gradient buckets: close one when it holds this many
};

}  // namespace ptrain
