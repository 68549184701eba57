// Takes the place of cudnn_attention.cpp in a build without cuDNN's frontend: no case is served, so that the
// own attention kernels are used.
#include "kernels/cuda/cudnn_attention.h"

namespace ptrain::cuda {

class CudnnAttention {};

void DeleteCudnnAttention::operator()(CudnnAttention* attention) const {
  delete attention;
}

int64_t cudnn_version() {
  return 0;
}

CudnnAttentionHandle make_cudnn_attention(Device, const LibraryOptions&) {
  return nullptr;
}

bool cudnn_attention_forward(Context&, const AttentionDims&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
  return false;
}

bool cudnn_attention_backward(Context&, const AttentionDims&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                              Tensor, Tensor, Tensor, Tensor) {
  return false;
}

}  // namespace ptrain::cuda
