// A model that only goes forward: prefill of a prompt, then token after token against a cache of keys and
// values. On one rank or a tensor group. Letters as in ModelSpec; P positions of the cache.
#pragma once

#include <span>
#include <vector>

#include "kernels/base/stream.h"
#include "kernels/ops/attention.h"
#include "src/model/activations.h"
#include "src/model/tensor_group.h"

namespace ptrain {

class Decoder {
 public:
  /// `tensor`: null or the group over which the model is cut. `max_positions`: prompt and new tokens
  /// together. `dtype`: of weights, cache and arithmetic.
  Decoder(const ModelSpec& spec, Communicator* tensor, const Context& context, int64_t max_positions,
          DType dtype = DType::f32);

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
  /// What the host tells a run, on either side: ids, positions (N) i32 and how many positions the cache then
  /// holds, (1) i32.
  struct Inputs {
    Tensor ids, positions, length;
  };
  /// Tensors of a run over N rows.
  struct Rows {
    Inputs host, input;
    Tensor document_start;  // (N) i32, zeros
    Tensor x, h, branch;    // (N, C)
    Tensor rstd;            // (N)
    Tensor qkv, attention, gate_up, act;
    Tensor lse;  // (1, H, N)
  };

  static void visit_inputs(int64_t n, Inputs& inputs, const VisitTensor& each);
  static void visit_rows(const BlockDims& dims, Rows& rows, const VisitTensor& each);
  BlockDims dims_of(int64_t n) const;
  Rows& rows_for(int64_t n);
  void block(Rows& rows, int64_t n, int layer);
  void attend(Rows& rows, int64_t n, int layer);
  /// From the inputs on the host to the logits of the last row on the host.
  void run(Rows& rows, int64_t n);
  void run_one();
  std::span<const float> whole_logits();

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
  DType dtype_;
  Arena arena_;
  Tensor parameters_, cos_sin_, keys_, values_;  // caches: (L, P, K D)
  Tensor head_h_, head_rstd_, logits_;
  Buffer host_;           // one_.host, then host_logits_
  Tensor host_logits_;    // as they are computed
  OwnedTensor logits32_;  // (V) f32, where that is something else
  Rows one_;
  OwnedTensor prompt_memory_;
  Buffer prompt_host_;
  Rows prompt_;
  Graph one_graph_;  // of a GPU's run over one row, captured at the second
  int64_t one_runs_ = 0;
};

}  // namespace ptrain
