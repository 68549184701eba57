// Embedding: checks and the choice of the device.
#include "kernels/ops/embedding.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void embedding_forward(Context& context, Tensor ids, Tensor table, int64_t first_id, Tensor y) {
  constexpr std::string_view op = "embedding_forward";
  expect_elements({op, "ids", ids}, y.rows(), DType::i32);
  expect_matrix({op, "table", table}, table.rows(), y.columns(), y.dtype);
  on_device(
      context, op, [&] { cpu::embedding_forward(context, ids, table, first_id, y); },
      [&] { cuda::embedding_forward(context, ids, table, first_id, y); });
}

void embedding_backward(Context& context, Tensor ids, Tensor dy, int64_t first_id, Tensor dtable) {
  constexpr std::string_view op = "embedding_backward";
  expect_elements({op, "ids", ids}, dy.rows(), DType::i32);
  expect_gradient({op, "dtable", dtable}, dy.dtype);
  expect_matrix({op, "dtable", dtable}, dtable.rows(), dy.columns(), dtable.dtype);
  on_device(
      context, op, [&] { cpu::embedding_backward(context, ids, dy, first_id, dtable); },
      [&] { cuda::embedding_backward(context, ids, dy, first_id, dtable); });
}

}  // namespace ptrain
