// The fused attention of cuDNN, for the cases that it serves. Not for callers outside of kernels/cuda: they
// call the attention ops, which fall back to the own kernels.
#pragma once

#include <memory>

#include "kernels/ops/attention.h"
#include "kernels/ops/libraries.h"

namespace ptrain::cuda {

/// The library's handle and the graphs built so far, one a shape. One a rank, owned by its libraries; null in
/// a build without cuDNN's frontend, or where the options ask for the own kernels.
class CudnnAttention;
struct DeleteCudnnAttention {
  void operator()(CudnnAttention* attention) const;
};
using CudnnAttentionHandle = std::unique_ptr<CudnnAttention, DeleteCudnnAttention>;

/// As cuDNN counts it (91900 = 9.19.0); 0 in a build without it.
int64_t cudnn_version();

/// Errors (resources): cuDNN does not start on that device.
CudnnAttentionHandle make_cudnn_attention(Device device, const LibraryOptions& options);

/// As attention_forward; false, with nothing done, where cuDNN does not serve the case: a dtype of 32 bits,
/// heads of no multiple of 8 or too large for the architecture, documents, query heads that are not whole
/// groups, or the libraries are without it.
bool cudnn_attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                             Tensor document_start, Tensor out, Tensor lse);
/// As attention_backward, but for delta, which it does not write.
bool cudnn_attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                              Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor dq,
                              Tensor dk, Tensor dv);

}  // namespace ptrain::cuda
