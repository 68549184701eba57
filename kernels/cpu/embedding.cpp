// Embedding look-up on a CPU.
#include <algorithm>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {

void embedding_forward(Context& context, Tensor ids, Tensor table, int64_t first_id, Tensor y) {
  with_storage(y.dtype, [&]<class S>() {
    const int32_t* id = ids.as<int32_t>();
    const S* in = table.as<S>();
    S* out = y.as<S>();
    const int64_t C = y.columns(), V = table.rows();
    parallel_rows(context.threads, y.rows(), C, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t row = id[n] - first_id;
        if (row >= 0 && row < V) {
          std::copy_n(in + row * table.row_stride, C, out + n * y.row_stride);
        } else {
          std::fill_n(out + n * y.row_stride, C, S{});
        }
      }
    });
  });
}

namespace {

/// A row of the table and the row of dy that is added to it.
struct Addend {
  int32_t row, n;
};

/// dtable of 16 bits: the rows of dy that one entry gets are summed in f32 with its old value and rounded
/// once, so they are sorted by entry first.   `addends`: room for N of them
template <class S>
void add_sorted(Context& context, const int32_t* id, Tensor dy, int64_t first_id, Tensor dtable,
                Addend* addends) {
  constexpr int64_t width = 256;  // columns whose sums are held at a time
  int64_t count = 0;
  for (int64_t n = 0; n < dy.rows(); ++n) {
    const int64_t row = id[n] - first_id;
    if (row >= 0 && row < dtable.rows())
      addends[count++] = {static_cast<int32_t>(row), static_cast<int32_t>(n)};
  }
  std::sort(addends, addends + count,
            [](const Addend& a, const Addend& b) { return a.row != b.row ? a.row < b.row : a.n < b.n; });
  const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(count, 1), 16);
  parallel_ranges(context.threads, dy.columns(), grain, 16, [&](int64_t begin, int64_t end) {
    float sums[width];
    for (int64_t first = begin; first < end; first += width) {
      const int64_t columns = std::min(width, end - first);
      for (int64_t i = 0; i < count;) {
        const int32_t row = addends[i].row;
        S* to = dtable.as<S>() + row * dtable.row_stride + first;
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) sums[c] = widen(to[c]);
        for (; i < count && addends[i].row == row; ++i) {
          const S* from = dy.as<S>() + addends[i].n * dy.row_stride + first;
#pragma omp simd
          for (int64_t c = 0; c < columns; ++c) sums[c] += widen(from[c]);
        }
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) to[c] = convert<S>(sums[c]);
      }
    }
  });
}

/// dtable of f32 or f64: added in place.
template <class S, class G>
void add_in_place(Context& context, const int32_t* id, Tensor dy, int64_t first_id, Tensor dtable) {
  const S* dout = dy.as<S>();
  G* din = dtable.as<G>();
  const int64_t N = dy.rows(), V = dtable.rows();
  // Threads share the columns and each goes through all rows: a row of the table is summed for n ascending
  // whatever their number.
  const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(N, 1), 16);
  parallel_ranges(context.threads, dy.columns(), grain, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = 0; n < N; ++n) {
      const int64_t row = id[n] - first_id;
      if (row < 0 || row >= V) continue;
      const S* from = dout + n * dy.row_stride;
      G* to = din + row * dtable.row_stride;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) to[c] += widen(from[c]);
    }
  });
}

}  // namespace

void embedding_backward(Context& context, Tensor ids, Tensor dy, int64_t first_id, Tensor dtable) {
  const int32_t* id = ids.as<int32_t>();
  with_gradient(dy.dtype, dtable.dtype, [&]<class S, class G>() {
    if constexpr (is_narrow<G>) {
      const int64_t needed = dy.rows() * static_cast<int64_t>(sizeof(Addend));
      const int64_t granted = context.scratch ? context.scratch.bytes() : 0;
      check(granted >= needed, "embedding_backward: {} bytes of scratch, {} are needed", granted, needed);
      add_sorted<S>(context, id, dy, first_id, dtable, static_cast<Addend*>(context.scratch.data));
    } else {
      add_in_place<S, G>(context, id, dy, first_id, dtable);
    }
  });
}

}  // namespace ptrain::cpu
