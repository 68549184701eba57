// A model that only goes forward: prefill of a prompt, then token after token against a cache of keys and
// values. On one rank or a tensor group. Letters as in ModelSpec; P positions of the cache.
#pragma once

#include <span>
#include <vector>

#include "kernels/ops/attention.h"
#include "src/model/activations.h"
#include "src/model/tensor_group.h"

namespace ptrain {

class Decoder {
 public:
  /// `tensor`: null or the group over which the model is cut. `max_positions`: prompt and new tokens
  /// together.
  Decoder(const ModelSpec& spec, Communicator* tensor, const Context& context, int64_t max_positions);

  const std::vector<PlacedWeight>& placed() const { return placed_; }
  Tensor parameters() const { return parameters_; }
  int64_t position() const { return position_; }
  int64_t max_positions() const { return max_positions_; }

  /// Runs `ids` behind what the cache holds (a prompt only into an empty cache, then one at a time).
  /// Returns the logits of the last one over the whole vocabulary, the same on every rank; valid until the
  /// next call.
  std::span<const float> forward(std::span<const int32_t> ids);
  /// Empties the cache.
  void clear() { position_ = 0; }

 private:
  /// Tensors of a run over N rows.
  struct Rows {
    Tensor ids, positions, document_start;  // (N) i32
    Tensor x, h, branch;                    // (N, C)
    Tensor rstd;                            // (N)
    Tensor qkv, attention, gate_up, act;
    Tensor lse;  // (1, H, N)
  };

  static void visit_rows(const BlockDims& dims, Rows& rows, const VisitTensor& each);
  Rows& rows_for(int64_t n);
  void block(Rows& rows, int64_t n, int layer);
  void attend(Rows& rows, int64_t n, int layer);
  std::span<const float> logits_of(Tensor last_row);

  ModelSpec spec_;
  Context context_;
  Mesh mesh_;
  int rank_ = 0;
  TensorGroup group_;
  LocalSizes local_;
  int64_t max_positions_;
  int64_t position_ = 0;
  std::vector<PlacedWeight> placed_;
  StageWeights weights_;
  Arena arena_;
  Tensor parameters_, cos_sin_, keys_, values_;  // caches: (L, P, K D)
  Tensor head_h_, head_rstd_, logits_, all_logits_, length_;
  Rows one_;
  OwnedTensor prompt_memory_;
  Rows prompt_;
};

}  // namespace ptrain
