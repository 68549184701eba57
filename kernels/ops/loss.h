// Cross-entropy over a vocabulary that may be cut over ranks: statistics of the local logits, their
// combination, and the gradient written over the logits. Letters: R rows with a target, V local vocabulary, P
// parts (tensor ranks).
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// statistics[r] = (max of the row, sum of exp(logit - max), logit of the target or -infinity where it is not
/// local). On a CPU sums run in f64 and are rounded once.
/// logits: (R, V)   targets: (R) i32, global ids   statistics: (R, 3) f32, or f64 for f64 logits
void loss_statistics(Context& context, Tensor logits, Tensor targets, int64_t first_id, Tensor statistics);

/// Combines P parts in ascending order.   parts: (P, R, 3)   statistics: (R, 3)
void loss_combine(Context& context, Tensor parts, Tensor statistics);

/// sum += negative log-likelihood of every row: max + log(sum) - target logit, rows ascending.
/// statistics: (R, 3), combined   sum: (1) f64
void loss_sum(Context& context, Tensor statistics, Tensor sum);

/// logits[r, v] = (softmax - [v is the target]) * scale, in place.
void loss_backward(Context& context, Tensor logits, Tensor statistics, Tensor targets, int64_t first_id,
                   double scale);

}  // namespace ptrain
