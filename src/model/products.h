// The matrix products of a block: in the dtype of its tensors, or in 8 bits with one scale a tensor, taken
// from the tensor's own largest element. Micikevicius et al.: "FP8 formats for deep learning" (2022).
#pragma once

#include <string>

#include "kernels/ops/context.h"
#include "kernels/ops/scratch.h"

namespace ptrain {

/// Bytes that the products of a block in 8 bits want beside their tensors; 0 where they are not. Pure.
int64_t product_scratch_bytes(const ScratchSizes& sizes);

/// Why the sizes cannot be multiplied in 8 bits, or empty: every inner size must be a multiple of 16.
/// `rows`: of a micro-batch.
std::string objection_to_fp8(const ScratchSizes& sizes, int64_t rows);

/// Letters: N rows, C inputs, O outputs. As the ops of kernels/ops/gemm.h. An empty scratch: not in 8 bits.
class Products {
 public:
  Products() = default;
  explicit Products(Tensor scratch);

  void forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y) const;
  void backward_input(Context& context, Tensor dy, Tensor w, Tensor dx) const;
  void backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw) const;

 private:
  enum class Turned { no, yes };
  struct Operand {
    Tensor values, scale;
  };
  Operand quantized(Context& context, Tensor x, DType dtype, Turned turned, int place) const;
  bool is_8_bit() const { return static_cast<bool>(scratch_); }

  Tensor scratch_;  // u8: amax and scale of both operands, then the operands
};

}  // namespace ptrain
