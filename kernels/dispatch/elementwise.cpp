// Moving, adding and counting elements: checks and the choice of the device.
#include "kernels/ops/elementwise.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "kernels/dispatch/dispatch.h"

namespace ptrain {

void fill(Context& context, Tensor x, double value) {
  on_device(
      context, "fill", [&] { cpu::fill(context, x, value); }, [&] { cuda::fill(context, x, value); });
}

void copy(Context& context, Tensor x, Tensor y) {
  expect_matrix({"copy", "x", x}, y.rows(), y.columns(), x.dtype);
  on_device(
      context, "copy", [&] { cpu::copy(context, x, y); }, [&] { cuda::copy(context, x, y); });
}

void add(Context& context, Tensor x, Tensor y) {
  expect_matrix({"add", "x", x}, y.rows(), y.columns(), y.dtype);
  on_device(
      context, "add", [&] { cpu::add(context, x, y); }, [&] { cuda::add(context, x, y); });
}

void scale(Context& context, Tensor x, double factor) {
  on_device(
      context, "scale", [&] { cpu::scale(context, x, factor); }, [&] { cuda::scale(context, x, factor); });
}

void add_bias(Context& context, Tensor y, Tensor bias) {
  expect_elements({"add_bias", "bias", bias}, y.columns(), y.dtype);
  on_device(
      context, "add_bias", [&] { cpu::add_bias(context, y, bias); },
      [&] { cuda::add_bias(context, y, bias); });
}

void gather_rows(Context& context, Tensor x, Tensor index, Tensor y) {
  expect_elements({"gather_rows", "index", index}, y.rows(), DType::i32);
  expect_matrix({"gather_rows", "x", x}, x.rows(), y.columns(), y.dtype);
  on_device(
      context, "gather_rows", [&] { cpu::gather_rows(context, x, index, y); },
      [&] { cuda::gather_rows(context, x, index, y); });
}

void scatter_rows(Context& context, Tensor x, Tensor index, Tensor y) {
  expect_elements({"scatter_rows", "index", index}, x.rows(), DType::i32);
  expect_matrix({"scatter_rows", "x", x}, x.rows(), y.columns(), y.dtype);
  on_device(
      context, "scatter_rows", [&] { cpu::scatter_rows(context, x, index, y); },
      [&] { cuda::scatter_rows(context, x, index, y); });
}

void sum_of_squares(Context& context, Tensor x, Tensor sum) {
  constexpr std::string_view op = "sum_of_squares";
  expect_elements({op, "x", x}, x.numel(), x.dtype);
  expect_elements({op, "sum", sum}, 1, DType::f64);
  on_device(
      context, op, [&] { cpu::sum_of_squares(context, x, sum); },
      [&] { cuda::sum_of_squares(context, x, sum); });
}

}  // namespace ptrain
