// Embedding look-up on a CPU.
#include <algorithm>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {

void embedding_forward(Context& context, Tensor ids, Tensor table, int64_t first_id, Tensor y) {
  with_float(y.dtype, [&]<class T>() {
    const int32_t* id = ids.as<int32_t>();
    const T* in = table.as<T>();
    T* out = y.as<T>();
    const int64_t C = y.columns(), V = table.rows();
    parallel_rows(context.threads, y.rows(), C, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t row = id[n] - first_id;
        if (row >= 0 && row < V) {
          std::copy_n(in + row * table.row_stride, C, out + n * y.row_stride);
        } else {
          std::fill_n(out + n * y.row_stride, C, T{0});
        }
      }
    });
  });
}

void embedding_backward(Context& context, Tensor ids, Tensor dy, int64_t first_id, Tensor dtable) {
  with_float(dy.dtype, [&]<class T>() {
    const int32_t* id = ids.as<int32_t>();
    const T* dout = dy.as<T>();
    T* din = dtable.as<T>();
    const int64_t N = dy.rows(), V = dtable.rows();
    // Threads share the columns and each goes through all rows: a row of the table is summed for n ascending
    // whatever their number.
    const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N, 1), 16);
    parallel_ranges(context.threads, dy.columns(), grain, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = 0; n < N; ++n) {
        const int64_t row = id[n] - first_id;
        if (row < 0 || row >= V) continue;
        const T* from = dout + n * dy.row_stride;
        T* to = din + row * dtable.row_stride;
#pragma omp simd
        for (int64_t c = begin; c < end; ++c) to[c] += from[c];
      }
    });
  });
}

}  // namespace ptrain::cpu
