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

template <class S>
void fill_run(S* x, const S value, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) x[i] = value;
}

}  // namespace

void fill(Context& context, Tensor x, double value) {
  with_storage(x.dtype, [&]<class S>() {
    S* data = x.as<S>();
    const S v = convert<S>(value);
    parallel_elements(context, x.is_contiguous(), x.rows(), x.columns(),
                      [&](int64_t n, int64_t begin, int64_t end) {
                        fill_run(data + n * x.row_stride + begin, v, end - begin);
                      });
  });
}

void add(Context& context, Tensor x, Tensor y) {
  with_storage(y.dtype, [&]<class S>() {
    const S* from = x.as<S>();
    S* to = y.as<S>();
    parallel_elements(context, x.is_contiguous() && y.is_contiguous(), y.rows(), y.columns(),
                      [&](int64_t n, int64_t begin, int64_t end) {
                        const S* a = from + n * x.row_stride;
                        S* b = to + n * y.row_stride;
#pragma omp simd
                        for (int64_t i = begin; i < end; ++i) b[i] = convert<S>(widen(b[i]) + widen(a[i]));
                      });
  });
}

void scale(Context& context, Tensor x, double factor) {
  with_storage(x.dtype, [&]<class S>() {
    S* data = x.as<S>();
    const auto f = static_cast<Wide<S>>(factor);
    parallel_elements(context, x.is_contiguous(), x.rows(), x.columns(),
                      [&](int64_t n, int64_t begin, int64_t end) {
                        S* a = data + n * x.row_stride;
#pragma omp simd
                        for (int64_t i = begin; i < end; ++i) a[i] = convert<S>(widen(a[i]) * f);
                      });
  });
}

void add_bias(Context& context, Tensor y, Tensor bias) {
  with_storage(y.dtype, [&]<class S>() {
    const S* b = bias.as<S>();
    S* data = y.as<S>();
    const int64_t C = y.columns();
    parallel_rows(context.threads, y.rows(), C, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        S* a = data + n * y.row_stride;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) a[c] = convert<S>(widen(a[c]) + widen(b[c]));
      }
    });
  });
}

namespace {

/// Blocks of fixed length are summed by themselves, then each group of blocks, then the groups: the order
/// depends on the length alone.
constexpr int64_t block_elements = 16384;
constexpr int64_t max_groups = 256;

template <class S>
double block_sum(const S* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(widen(x[i]));
    sum += value * value;
  }
  return sum;
}

}  // namespace

void sum_of_squares(Context& context, Tensor x, Tensor sum) {
  double total = 0;
  with_storage(x.dtype, [&]<class S>() {
    const S* data = x.as<S>();
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
