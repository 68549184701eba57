// 8-bit floats on a CPU: storage. Products widen them to f32 (widened_gemm.h).
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"
#include "kernels/cpu/widened_gemm.h"

namespace ptrain::cpu {
namespace {

/// The bits of the largest magnitude. As integers, magnitudes are ordered as the numbers are, with infinity
/// and then NaN above them: one maximum finds all three.
template <class S>
uint32_t largest_bits(const S* x, int64_t count) {
  uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(convert<float>(x[i])) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

constexpr uint32_t infinity_bits = 0x7f800000u;

/// Rows and columns of a block whose transpose stays in the first cache.
constexpr int64_t block_side = 64;

/// One block of x * scale as 8-bit elements, to y and to its transpose where there is one.
template <class Q, class S>
void quantize_block(Tensor x, float scale, Tensor y, Tensor y_t, const Tile& block) {
  Q quantized[block_side][block_side];
  for (int64_t i = 0; i < block.rows; ++i) {
    const S* from = x.as<S>() + (block.row + i) * x.row_stride + block.column;
    Q* to = quantized[i];
#pragma omp simd
    for (int64_t j = 0; j < block.columns; ++j) to[j] = convert<Q>(convert<float>(from[j]) * scale);
    if (y) std::copy_n(to, block.columns, y.as<Q>() + (block.row + i) * y.row_stride + block.column);
  }
  if (!y_t) return;
  for (int64_t j = 0; j < block.columns; ++j) {
    Q* to = y_t.as<Q>() + (block.column + j) * y_t.row_stride + block.row;
    for (int64_t i = 0; i < block.rows; ++i) to[i] = quantized[i][j];
  }
}

}  // namespace

void update_amax(Context& context, Tensor x, Tensor amax) {
  constexpr int64_t max_groups = 256;
  float& kept = *amax.as<float>();
  const int64_t rows = x.rows(), groups = std::min(rows, max_groups);
  uint32_t largest[max_groups] = {std::bit_cast<uint32_t>(kept) & 0x7fffffffu};
  with_storage(x.dtype, [&]<class S>() {
    const S* data = x.as<S>();
    const int64_t grain =
        std::max<int64_t>(min_elements_per_thread * groups / std::max<int64_t>(x.numel(), 1), 1);
    parallel_ranges(context.threads, groups, grain, 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        for (int64_t n = rows * group / groups; n < rows * (group + 1) / groups; ++n)
          largest[group] = std::max(largest[group], largest_bits(data + n * x.row_stride, x.columns()));
      }
    });
  });
  const uint32_t bits = *std::max_element(largest, largest + max_groups);
  kept = std::bit_cast<float>(std::min(bits, infinity_bits));
}

void scale_of_amax(Context&, Tensor amax, DType dtype, int margin, Tensor scale) {
  const float largest = *amax.as<float>();
  const double wanted = largest_of(dtype) / static_cast<double>(largest) * std::ldexp(1.0, -margin);
  const bool is_usable = largest > 0 && std::isfinite(largest);
  // An amax below the normal numbers would make an infinite scale, and 0 * infinity is no number.
  *scale.as<float>() = is_usable ? static_cast<float>(std::min(wanted, static_cast<double>(FLT_MAX))) : 1.0f;
}

void quantize(Context& context, Tensor x, Tensor scale, Tensor y, Tensor y_t) {
  const float factor = *scale.as<float>();
  const int64_t rows = x.rows(), columns = x.columns();
  with_float8(y ? y.dtype : y_t.dtype, [&]<class Q>() {
    with_storage(x.dtype, [&]<class S>() {
      const int64_t strips = (rows + block_side - 1) / block_side;
      const int64_t grain = min_elements_per_thread / std::max<int64_t>(block_side * columns, 1);
      parallel_ranges(context.threads, strips, grain, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * block_side; row < std::min(end * block_side, rows); row += block_side) {
          for (int64_t column = 0; column < columns; column += block_side) {
            quantize_block<Q, S>(
                x, factor, y, y_t,
                {row, std::min(block_side, rows - row), column, std::min(block_side, columns - column)});
          }
        }
      });
    });
  });
}

void linear_quantized(Context& context, Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, Tensor y,
                      Write write) {
  const double scales = static_cast<double>(*a_scale.as<float>()) * static_cast<double>(*b_scale.as<float>());
  const auto factor = static_cast<float>(1 / scales);
  with_float8(a.dtype, [&]<class A>() {
    with_float8(b.dtype, [&]<class B>() {
      with_storage(y.dtype, [&]<class C>() {
        if constexpr (std::is_same_v<C, double>) {
          fail(ExitCode::defect, "linear_quantized: y is f64");
        } else {
          multiply_widened<A, B, C>(context, "linear_quantized", y.rows(), y.columns(), a.columns(),
                                    matrix_of<const A>(a), matrix_of<const B>(b, Transpose::yes),
                                    {.c = matrix_of<C>(y), .write = write, .factor = factor});
        }
      });
    });
  });
}

}  // namespace ptrain::cpu
