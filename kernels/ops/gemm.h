// Linear layers: the three products of y = x W' + b. Any operand may be a column view (row stride larger than
// its width). Letters: N rows, C inputs, O outputs. dtypes: all of one call are equal, but gradients of
// weights may be f32 where the operands are 16 bits wide; sums run in f32 at least. Bits are the same for the
// same shapes and number of threads; another number may cut a product elsewhere and change the last ones.
// Where Context::is_thread_invariant, products on a CPU are cut by a rule that knows the shape alone: then
// bits do not depend on the threads either, for a few per cent of speed.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// y = x w' + bias (Write::accumulate: y += …).   x: (N, C)   w: (O, C)   bias: (O) or empty   y: (N, O)
void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y,
                    Write write = Write::overwrite);

/// dx = dy w.   dy: (N, O)   w: (O, C)   dx: (N, C)
void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write = Write::overwrite);

/// dw += dy' x, summed over the rows.   dy: (N, O)   x: (N, C)   dw: (O, C)
void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw,
                            Write write = Write::accumulate);

/// db += sum over the rows of dy.   dy: (N, O)   db: (O)
void linear_backward_bias(Context& context, Tensor dy, Tensor db, Write write = Write::accumulate);

}  // namespace ptrain
