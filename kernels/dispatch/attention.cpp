// Attention: checks and the choice of the device.
#include "kernels/ops/attention.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {
namespace {

void expect_heads(std::string_view op, const AttentionDims& dims) {
  check(dims.group >= 1 && dims.H >= 1 && dims.first_head >= 0 &&
            (dims.first_head + dims.H - 1) / dims.group < dims.K,
        "{}: {} query heads from head {} in groups of {} need more than {} key-value heads", op, dims.H,
        dims.first_head, dims.group, dims.K);
}

}  // namespace

void attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                       Tensor document_start, Tensor out, Tensor lse) {
  constexpr std::string_view op = "attention_forward";
  const int64_t N = dims.B * dims.T;
  expect_heads(op, dims);
  expect_matrix({op, "q", q}, N, dims.H * dims.D, q.dtype);
  expect_matrix({op, "k", k}, N, dims.K * dims.D, q.dtype);
  expect_matrix({op, "v", v}, N, dims.K * dims.D, q.dtype);
  expect_matrix({op, "out", out}, N, dims.H * dims.D, q.dtype);
  expect_elements({op, "document_start", document_start}, N, DType::i32);
  expect_elements({op, "lse", lse}, dims.B * dims.H * dims.T, wide(q.dtype));
  on_device(
      context, op, [&] { cpu::attention_forward(context, dims, q, k, v, document_start, out, lse); },
      [&] { cuda::attention_forward(context, dims, q, k, v, document_start, out, lse); });
}

void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv) {
  constexpr std::string_view op = "attention_backward";
  const int64_t N = dims.B * dims.T;
  expect_heads(op, dims);
  expect_matrix({op, "q", q}, N, dims.H * dims.D, q.dtype);
  expect_matrix({op, "k", k}, N, dims.K * dims.D, q.dtype);
  expect_matrix({op, "v", v}, N, dims.K * dims.D, q.dtype);
  expect_matrix({op, "out", out}, N, dims.H * dims.D, q.dtype);
  expect_matrix({op, "dout", dout}, N, dims.H * dims.D, q.dtype);
  expect_matrix({op, "dq", dq}, N, dims.H * dims.D, q.dtype);
  expect_matrix({op, "dk", dk}, N, dims.K * dims.D, q.dtype);
  expect_matrix({op, "dv", dv}, N, dims.K * dims.D, q.dtype);
  expect_elements({op, "document_start", document_start}, N, DType::i32);
  expect_elements({op, "lse", lse}, dims.B * dims.H * dims.T, wide(q.dtype));
  expect_elements({op, "delta", delta}, dims.B * dims.H * dims.T, wide(q.dtype));
  on_device(
      context, op,
      [&] {
        cpu::attention_backward(context, dims, q, k, v, document_start, out, lse, dout, delta, dq, dk, dv);
      },
      [&] {
        cuda::attention_backward(context, dims, q, k, v, document_start, out, lse, dout, delta, dq, dk, dv);
      });
}

void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out) {
  constexpr std::string_view op = "attention_decode";
  expect_heads(op, dims);
  check(keys.shape.dims() == 3, "{}: keys are {}, expected (B, P, K*D)", op, to_string(keys.shape));
  const int64_t positions = dims.B * keys.shape[1];
  expect_matrix({op, "q", q}, dims.B, dims.H * dims.D, q.dtype);
  expect_matrix({op, "keys", keys}, positions, dims.K * dims.D, q.dtype);
  expect_matrix({op, "values", values}, positions, dims.K * dims.D, q.dtype);
  expect_matrix({op, "out", out}, dims.B, dims.H * dims.D, q.dtype);
  expect_elements({op, "lengths", lengths}, dims.B, DType::i32);
  on_device(
      context, op, [&] { cpu::attention_decode(context, dims, q, keys, values, lengths, out); },
      [&] { cuda::attention_decode(context, dims, q, keys, values, lengths, out); });
}

}  // namespace ptrain
