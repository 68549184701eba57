// What takes the place of the CUDA twins in a build without CUDA: they say so.
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

[[noreturn]] void refuse() {
  fail(ExitCode::usage, "this build has no CUDA: run with device: cpu, or build where the CUDA toolkit is");
}

}  // namespace

[[gnu::weak]] std::unique_ptr<Libraries> make_libraries(Device, const LibraryOptions&) {
  refuse();
}
[[gnu::weak]] LibraryVersions library_versions() {
  return {};
}
[[gnu::weak]] void swiglu_forward(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void swiglu_backward(Context&, Tensor, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void gradient_scale(Context&, Tensor, double, double, Tensor) {
  refuse();
}
[[gnu::weak]] void adamw(Context&, const AdamWStep&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void join_master(Context&, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void split_master(Context&, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void attention_forward(Context&, const AttentionDims&, Tensor, Tensor, Tensor, Tensor, Tensor,
                                     Tensor) {
  refuse();
}
[[gnu::weak]] void attention_backward(Context&, const AttentionDims&, Tensor, Tensor, Tensor, Tensor, Tensor,
                                      Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void attention_decode(Context&, const AttentionDims&, Tensor, Tensor, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void fill(Context&, Tensor, double) {
  refuse();
}
[[gnu::weak]] void copy(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void add(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void scale(Context&, Tensor, double) {
  refuse();
}
[[gnu::weak]] void add_bias(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void gather_rows(Context&, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void scatter_rows(Context&, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void sum_of_squares(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void embedding_forward(Context&, Tensor, Tensor, int64_t, Tensor) {
  refuse();
}
[[gnu::weak]] void embedding_backward(Context&, Tensor, Tensor, int64_t, Tensor) {
  refuse();
}
[[gnu::weak]] void checksum(Context&, Tensor, Tensor, uint64_t) {
  refuse();
}
[[gnu::weak]] void exact_sum_of_squares(Context&, Tensor, Tensor, Write) {
  refuse();
}
[[gnu::weak]] void exact_total(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void gelu_forward(Context&, Tensor, Tensor, Gelu) {
  refuse();
}
[[gnu::weak]] void gelu_backward(Context&, Tensor, Tensor, Tensor, Gelu) {
  refuse();
}
[[gnu::weak]] void layernorm_forward(Context&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                     double) {
  refuse();
}
[[gnu::weak]] void layernorm_backward(Context&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                      Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void linear_forward(Context&, Tensor, Tensor, Tensor, Tensor, Write) {
  refuse();
}
[[gnu::weak]] void linear_backward_input(Context&, Tensor, Tensor, Tensor, Write) {
  refuse();
}
[[gnu::weak]] void linear_backward_weight(Context&, Tensor, Tensor, Tensor, Write) {
  refuse();
}
[[gnu::weak]] void linear_backward_bias(Context&, Tensor, Tensor, Write) {
  refuse();
}
[[gnu::weak]] void loss_statistics(Context&, Tensor, Tensor, int64_t, Tensor) {
  refuse();
}
[[gnu::weak]] void loss_combine(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void loss_sum(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void loss_backward(Context&, Tensor, Tensor, Tensor, int64_t, double) {
  refuse();
}
[[gnu::weak]] void rmsnorm_forward(Context&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double) {
  refuse();
}
[[gnu::weak]] void rmsnorm_backward(Context&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void update_amax(Context&, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void scale_of_amax(Context&, Tensor, DType, int, Tensor) {
  refuse();
}
[[gnu::weak]] void quantize(Context&, Tensor, Tensor, Tensor, Tensor) {
  refuse();
}
[[gnu::weak]] void linear_quantized(Context&, Tensor, Tensor, Tensor, Tensor, Tensor, Write) {
  refuse();
}
[[gnu::weak]] void rope(Context&, Tensor, Tensor, Tensor, int64_t, Rotation) {
  refuse();
}

}  // namespace ptrain::cuda
