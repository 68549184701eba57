// Filling, adding, scaling and sums of squares on a CPU. Copies are in copy.cpp.
#include <algorithm>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

/// Calls body(row, begin, end) over all elements, a contiguous tensor taken as one long row.
template <class Body>
void parallel_elements(Context& context, bool is_contiguous, int64_t rows, int64_t columns,
                       const Body& body) {
  if (is_contiguous) {
    parallel_ranges(context.threads, rows * columns, min_elements_per_thread, 1024,
                    [&](int64_t begin, int64_t end) { body(int64_t{0}, begin, end); });
    return;
  }
  parallel_rows(context.threads, rows, columns, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) body(n, int64_t{0}, columns);
  });
}

}  // namespace

void fill(Context& context, Tensor x, double value) {
  with_float(x.dtype, [&]<class T>() {
    T* data = x.as<T>();
    const T v = static_cast<T>(value);
    parallel_elements(context, x.is_contiguous(), x.rows(), x.columns(),
                      [&](int64_t n, int64_t begin, int64_t end) {
                        std::fill(data + n * x.row_stride + begin, data + n * x.row_stride + end, v);
                      });
  });
}

void add(Context& context, Tensor x, Tensor y) {
  with_float(y.dtype, [&]<class T>() {
    const T* from = x.as<T>();
    T* to = y.as<T>();
    parallel_elements(context, x.is_contiguous() && y.is_contiguous(), y.rows(), y.columns(),
                      [&](int64_t n, int64_t begin, int64_t end) {
                        const T* a = from + n * x.row_stride;
                        T* b = to + n * y.row_stride;
#pragma omp simd
                        for (int64_t i = begin; i < end; ++i) b[i] += a[i];
                      });
  });
}

void scale(Context& context, Tensor x, double factor) {
  with_float(x.dtype, [&]<class T>() {
    T* data = x.as<T>();
    const T f = static_cast<T>(factor);
    parallel_elements(context, x.is_contiguous(), x.rows(), x.columns(),
                      [&](int64_t n, int64_t begin, int64_t end) {
                        T* a = data + n * x.row_stride;
#pragma omp simd
                        for (int64_t i = begin; i < end; ++i) a[i] *= f;
                      });
  });
}

void add_bias(Context& context, Tensor y, Tensor bias) {
  with_float(y.dtype, [&]<class T>() {
    const T* b = bias.as<T>();
    T* data = y.as<T>();
    const int64_t C = y.columns();
    parallel_rows(context.threads, y.rows(), C, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T* a = data + n * y.row_stride;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) a[c] += b[c];
      }
    });
  });
}

namespace {

/// Blocks of fixed length are summed by themselves, then each group of blocks, then the groups: the order
/// depends on the length alone.
constexpr int64_t block_elements = 16384;
constexpr int64_t max_groups = 256;

template <class T>
double block_sum(const T* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

void sum_of_squares(Context& context, Tensor x, Tensor sum) {
  double total = 0;
  with_float(x.dtype, [&]<class T>() {
    const T* data = x.as<T>();
    const int64_t count = x.numel(), blocks = (count + block_elements - 1) / block_elements;
    const int64_t groups = std::min(blocks, max_groups);
    double sums[max_groups] = {};
    parallel_ranges(context.threads, groups, 1, 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        for (int64_t block = blocks * group / groups; block < blocks * (group + 1) / groups; ++block) {
          const int64_t first = block * block_elements;
          sums[group] += block_sum(data + first, std::min(block_elements, count - first));
        }
      }
    });
    for (int64_t group = 0; group < groups; ++group) total += sums[group];
  });
  *sum.as<double>() += total;
}

}  // namespace ptrain::cpu
