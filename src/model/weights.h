// The one table of a model's weights, behind initialisation, sharding, optimizer and checkpoint; and the
// views through which the layers see them. The same structs hold weights and gradients.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/tensor.h"
#include "parallel/plan/layout.h"
#include "parallel/run/flat_memory.h"
#include "src/model/spec.h"

namespace ptrain {

enum class Init { normal, ones, zeros };

/// What a weight is to the layer that reads it.
enum class Role {
  embedding,
  norm_1,
  q,
  k,
  v,
  q_bias,
  k_bias,
  v_bias,
  o,
  o_bias,
  norm_2,
  gate,
  up,
  gate_bias,
  up_bias,
  down,
  down_bias,
  final_norm,
  head,
};

struct WeightSpec {
  Piece piece;
  Role role = Role::embedding;
  int unit = 0;    // 0 the embedding, 1 … L the blocks, L + 1 the head, L + 2 its copy of a tied table
  int fusion = 0;  // neighbours in the table with one non-zero number lie side by side in memory: one product
  Init init = Init::normal;
  bool decays = true;
  bool is_tied_copy = false;  // the head's own copy of the embedding, where first and last stage are apart
};

enum class SequenceParallel { off, on };

/// All weights in order of the units. `has_tied_copy`: the embedding is tied and the last stage needs a copy
/// of its own.
std::vector<WeightSpec> weights_of(const ModelSpec& spec, SequenceParallel sequence_parallel,
                                   bool has_tied_copy);

/// Local sizes of one tensor rank: letters as in ModelSpec.
struct LocalSizes {
  int64_t H = 0, K = 0, F = 0, V = 0;
  int64_t first_head = 0;  // of the first local query head within its first KV head's group
  int64_t first_id = 0;    // first local row of the vocabulary
};
LocalSizes local_sizes(const ModelSpec& spec, const Mesh& mesh, int rank);

struct BlockWeights {
  Tensor norm_1;        // (C)
  Tensor qkv;           // ((H + 2K) D, C): rows of q, then k, then v
  Tensor qkv_bias;      // ((H + 2K) D) or empty
  Tensor o;             // (C, H D)
  Tensor o_bias;        // (C) or empty
  Tensor norm_2;        // (C)
  Tensor gate_up;       // (2F, C): rows of gate, then up
  Tensor gate_up_bias;  // (2F) or empty
  Tensor down;          // (C, F)
  Tensor down_bias;     // (C) or empty
};

/// A stage's weights (or gradients), local boxes; H, K, F, V are the local sizes.
struct StageWeights {
  Tensor embedding;  // (V, C) on the first stage, else empty
  std::vector<BlockWeights> blocks;
  Tensor final_norm;  // (C) on the last stage, else empty
  Tensor head;        // (V, C) on the last stage, else empty; the embedding itself where tied on one stage
};

/// One weight of a stage and where it lies in the stage's flat buffer.
struct PlacedWeight {
  WeightSpec spec;
  Box box;             // local
  int64_t offset = 0;  // elements into the flat buffer
};

/// Views into `memory` of the weights of a stage: of `units`, with blocks [first_block, first_block +
/// blocks).
StageWeights bind_weights(const std::vector<PlacedWeight>& placed, Range units, const FlatMemory& memory,
                          int first_block, int blocks);

}  // namespace ptrain
