// Causal attention inside documents, tile by tile: no (T, T) matrix in memory.
// Letters: B batch, T time, N = B * T rows (row b * T + t), H query heads, K key-value heads, D head size.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

struct AttentionDims {
  int64_t B = 0, T = 0, H = 0, K = 0, D = 0;
  // Query head h reads key-value head (first_head + h) / group: first_head is not 0 where tensor parallelism
  // cuts a group.
  int64_t group = 1;
  int64_t first_head = 0;
  double scale = 1;           // scores are scale * q . k
  int64_t window = 0;         // > 0: a query sees itself and the window - 1 positions before it; 0: all
  bool has_documents = true;  // false: the caller knows that every document_start is 0
};

/// out = softmax(scale q k') v over the keys that query t of row b sees: document_start[b, t] <= s <= t, and
/// the window. Every query sees itself.
/// q, out: (N, H*D)   k, v: (N, K*D); each may be a column view
/// document_start: (N) i32, time index of the first token of t's document
/// lse: (B, H, T) f32 (f64 for f64), log-sum-exp of the scaled scores, kept for backward
/// Bits do not depend on the threads. Errors (usage): on a CPU a head larger than 256.
void attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                       Tensor document_start, Tensor out, Tensor lse);

/// Gradients of the above from what it left. dq, dk, dv are overwritten and may be column views.
/// delta: (B, H, T) f32 (f64 for f64) scratch, for the row sums of out * dout where no library keeps them
/// dk and dv are summed over the query heads of a group and their tiles in a fixed order: bits do not depend
/// on the threads.
void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv);

/// One new token a sequence against a cache of keys and values.
/// q, out: (B, H*D)   keys, values: (B, P, K*D), of which lengths[b] positions are valid
/// lengths: (B) i32, at least 1; the last valid position is the new token's   dims.T is not read.
void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out);

}  // namespace ptrain
