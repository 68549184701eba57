// The arithmetic of reductions: values of several ranks become one, in rank order or as a tree. No
// communication.
#pragma once

#include <span>

#include "kernels/base/dtype.h"
#include "parallel/comm/communicator.h"

namespace ptrain {

/// out[i] = ((sources[0][i] op sources[1][i]) op sources[2][i]) …, or the tree of SumOrder. sources: one
/// pointer a rank, in rank order, each to `count` elements; out may be one of them. bf16 and f16 are summed
/// in f32 and rounded once, in either order. Errors (defect): a dtype without arithmetic here, or a sum of
/// u8.
void reduce_in_order(std::span<const void* const> sources, void* out, int64_t count, DType dtype,
                     Reduce reduce, SumOrder order = SumOrder::ranks);

/// Whether reduce_in_order takes this pair.
bool can_reduce(DType dtype, Reduce reduce);

}  // namespace ptrain
