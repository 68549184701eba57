// Moving, adding and counting elements. Tensors may be column views unless it says contiguous.
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

void fill(Context& context, Tensor x, double value);
/// y = x, converted where the dtypes differ (f64, f32, bf16, f16; to nearest even). On a CPU also 8-bit
/// floats, which saturate at the largest finite value.
void copy(Context& context, Tensor x, Tensor y);
/// y += x
void add(Context& context, Tensor x, Tensor y);
/// x *= factor
void scale(Context& context, Tensor x, double factor);
/// y[n] += bias.   y: (N, C)   bias: (C)
void add_bias(Context& context, Tensor y, Tensor bias);

/// y[r] = x[index[r]].   x: (N, C)   index: (R) i32   y: (R, C)
void gather_rows(Context& context, Tensor x, Tensor index, Tensor y);
/// y[index[r]] = x[r]; other rows of y stay. No index twice.
void scatter_rows(Context& context, Tensor x, Tensor index, Tensor y);

/// sum += sum of squares of x, in an order that does not depend on the threads. x contiguous.   sum: (1) f64
void sum_of_squares(Context& context, Tensor x, Tensor sum);

}  // namespace ptrain
