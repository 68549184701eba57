// Look-up of token vectors in a table that may be a slice of the vocabulary. Letters: N rows, C channels, V
// table rows.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// y[n] = table[ids[n] - first_id], or zeros where that row is not in the table.
/// ids: (N) i32   table: (V, C)   y: (N, C)
void embedding_forward(Context& context, Tensor ids, Tensor table, int64_t first_id, Tensor y);

/// dtable[ids[n] - first_id] += dy[n], for n ascending: the order of the sum does not depend on the threads.
/// dtable: (V, C) of the dtype of dy, or f32
void embedding_backward(Context& context, Tensor ids, Tensor dy, int64_t first_id, Tensor dtable);

}  // namespace ptrain
