// The three products of a linear layer as calls to be measured. Not for their timing: see gemm.cpp.
#pragma once

#include "launch/bench/workbench.h"

namespace ptrain::bench {

enum class ProductKind { forward, input_gradient, weight_gradient };

/// Element types of a step's products.
struct ProductTypes {
  DType operands = DType::f32;         // f8_e4m3: 8 bits, gradients in f8_e5m2
  DType result = DType::f32;           // of layers and their gradients
  DType weight_gradient = DType::f32;  // what is added up over micro-batches
};
ProductTypes product_types(Config::Precision precision);

/// One product of y (N, O) = x (N, C) w' or of its gradients, on tensors of its own.
Prepare product(Context& context, ProductKind kind, const ProductTypes& types, int64_t N, int64_t C,
                int64_t O);

/// What the ops of such a product want of scratch.
ScratchSizes sizes_of_product(int64_t N, int64_t C, int64_t O, DType operands);

}  // namespace ptrain::bench
