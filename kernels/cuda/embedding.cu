// Embedding look-up on a GPU. Bytes moved an element of s bytes: forward 2s; backward s read of dy, and one
// read and one write of dtable for every row of it that occurs, however often.
//
// Backward is deterministic without atomics, and a frequent id (padding) has no thread to itself: rows are
// sorted by (id, n), chunks of 64 sorted rows are summed side by side, and ids that cross from one chunk into
// the next are added in a last pass, chunks ascending.
#include "kernels/ops/embedding.h"

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// The rows' ids as rows of the table; V for those that are not in it.
struct Lookup {
  const int32_t* ids;
  int32_t N, V;
  int64_t first_id;
  __device__ int32_t table_row(int64_t n) const {
    const int64_t row = ids[n] - first_id;
    return row >= 0 && row < V ? static_cast<int32_t>(row) : V;
  }
};

template <class T, int width>
__global__ void forward_kernel(Lookup lookup, Matrix<const T> table, Matrix<T> y, Runs runs) {
  for_each_run<width>(
      runs,
      [&](int64_t n, int64_t column) {
        const int32_t row = lookup.table_row(n);
        Vector<T, width> run;
        for (int i = 0; i < width; ++i) run.at[i] = from_float<T>(0);
        if (row < lookup.V) run = load_run<width>(table, row, column);
        return run;
      },
      [&](int64_t n, int64_t column, const Vector<T, width>& run) { store_run<width>(y, n, column, run); });
}

constexpr int rank_rows = 64, rank_parts = 4, rank_tile = 1024;

/// order[rank of n] = n, ranks by (table row, n): a row's rank is the number of rows before it, counted by
/// four threads over all of them.
__global__ void rank_kernel(Lookup lookup, int32_t* order) {
  __shared__ Vector<int32_t, 4> tile[rank_tile / 4];
  __shared__ int32_t counts[rank_parts][rank_rows];
  const int own = threadIdx.x % rank_rows, part = threadIdx.x / rank_rows;
  const int32_t n = static_cast<int32_t>(blockIdx.x) * rank_rows + own;
  const int32_t mine = n < lookup.N ? lookup.table_row(n) : 0;
  constexpr int part_rows = rank_tile / rank_parts;
  int32_t count = 0;
  for (int32_t begin = 0; begin < lookup.N; begin += rank_tile) {
    __syncthreads();  // the last tile has been read
    for (int i = threadIdx.x; i < rank_tile; i += blockDim.x)
      tile[i / 4].at[i % 4] = begin + i < lookup.N ? lookup.table_row(begin + i) : INT32_MAX;
    __syncthreads();
    for (int i = part * part_rows; i < (part + 1) * part_rows; i += 4) {
      const Vector<int32_t, 4> others = tile[i / 4];
      // Of equal ids those before n count.
      for (int j = 0; j < 4; ++j) count += others.at[j] < mine + (begin + i + j < n ? 1 : 0) ? 1 : 0;
    }
  }
  counts[part][own] = count;
  __syncthreads();
  if (part != 0 || n >= lookup.N) return;
  int32_t rank = 0;
  for (int p = 0; p < rank_parts; ++p) rank += counts[p][own];
  order[rank] = n;
}

constexpr int chunk_rows = embedding_chunk_rows;
constexpr int chunk_threads = 128;

/// Sums of ids that cross chunks, (chunks, C) f32 each.
struct Crossing {
  float* heads;  // of a chunk's first id where it began before the chunk
  float* tails;  // of a chunk's last id where it began here and goes on
};

template <class G, int width>
__device__ inline void add_to(const Matrix<G>& dtable, int64_t row, int64_t column, const float* sums) {
  auto old = load_run<width>(dtable, row, column);
  for (int i = 0; i < width; ++i) old.at[i] = from_float<G>(to_float(old.at[i]) + sums[i]);
  store_run<width>(dtable, row, column, old);
}

/// One chunk of sorted rows, one tile of columns.
template <class T, class G, int width>
__global__ void chunk_kernel(Lookup lookup, const int32_t* order, Matrix<const T> dy, Matrix<G> dtable,
                             Crossing crossing, int64_t C) {
  __shared__ int32_t rows[chunk_rows], keys[chunk_rows + 2];  // keys also of the neighbours
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * chunk_rows;
  const int count = lookup.N - begin < chunk_rows ? lookup.N - begin : chunk_rows;
  for (int i = threadIdx.x; i < chunk_rows + 2; i += blockDim.x) {
    const int32_t p = begin + i - 1;
    const int32_t row = p >= 0 && p < lookup.N ? order[p] : -1;
    keys[i] = row < 0 ? -1 : lookup.table_row(row);
    if (i >= 1 && i <= chunk_rows) rows[i - 1] = row;
  }
  __syncthreads();
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * width;
  if (column >= C) return;
  constexpr int batch = 4;  // rows that are under way together
  float sums[width] = {};
  int first = 0;  // row of the chunk where this id begins
  for (int base = 0; base < count; base += batch) {
    Vector<T, width> runs[batch];
    for (int j = 0; j < batch; ++j)
      if (base + j < count) runs[j] = load_run<width>(dy, rows[base + j], column);
    for (int j = 0; j < batch; ++j) {
      const int i = base + j;
      if (i >= count || keys[i + 1] == lookup.V) return;  // sorted: the rest is not in the table either
      const int32_t key = keys[i + 1];
      for (int k = 0; k < width; ++k) sums[k] += to_float(runs[j].at[k]);
      if (i + 1 < count && keys[i + 2] == key) continue;
      const bool began_before = first == 0 && keys[0] == key, goes_on = keys[i + 2] == key;
      if (began_before || goes_on) {
        float* to = (began_before ? crossing.heads : crossing.tails) + blockIdx.x * C + column;
        store_sums<width>(to, sums);
      } else {
        add_to<G, width>(dtable, key, column, sums);
      }
      for (int k = 0; k < width; ++k) sums[k] = 0;
      first = i + 1;
    }
  }
}

/// Where a chunk's last id begins in it and goes on: its sums over the chunks, ascending, are added.
template <class G>
__global__ void crossing_kernel(Lookup lookup, const int32_t* order, Crossing crossing, Matrix<G> dtable,
                                int64_t C) {
  const auto key_at = [&](int64_t p) { return lookup.table_row(order[p]); };
  const int64_t chunk = blockIdx.x, begin = chunk * chunk_rows, next = begin + chunk_rows;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= C || next >= lookup.N) return;
  const int32_t key = key_at(next);
  if (key == lookup.V || key_at(next - 1) != key) return;
  if (begin > 0 && key_at(begin - 1) == key) return;  // an earlier chunk adds it
  int64_t end = next + 1, above = lookup.N;           // of the rows with this key: by halves
  while (end < above) {
    const int64_t middle = (end + above) / 2;
    if (key_at(middle) == key) {
      end = middle + 1;
    } else {
      above = middle;
    }
  }
  float sum = crossing.tails[chunk * C + column];
  for (int64_t c = chunk + 1; c * chunk_rows < end; ++c) sum += crossing.heads[c * C + column];
  add_to<G, 1>(dtable, key, column, &sum);
}

Lookup lookup_of(Tensor ids, int64_t first_id, int64_t V) {
  check(ids.numel() < int64_t{1} << 30 && V < int64_t{1} << 30,
        "{} rows and {} ids are more than a kernel counts", ids.numel(), V);
  return {elements<const int32_t>(ids), static_cast<int32_t>(ids.numel()), static_cast<int32_t>(V), first_id};
}

}  // namespace

void embedding_forward(Context& context, Tensor ids, Tensor table, int64_t first_id, Tensor y) {
  const Lookup lookup = lookup_of(ids, first_id, table.rows());
  with_element(y.dtype, [&]<class T>() {
    with_width<T>(is_vectorizable(table) && is_vectorizable(y), [&]<int width>() {
      const Runs runs = runs_of(y.rows(), y.columns(), width);
      launch(context, forward_kernel<T, width>, blocks_of(runs), run_threads, 0, lookup,
             matrix<const T>(table), matrix<T>(y), runs);
    });
  });
}

void embedding_backward(Context& context, Tensor ids, Tensor dy, int64_t first_id, Tensor dtable) {
  const int64_t N = dy.rows(), C = dy.columns(), chunks = divide_up(N, chunk_rows);
  const Lookup lookup = lookup_of(ids, first_id, dtable.rows());
  const int64_t order_bytes = embedding_order_bytes(N);
  auto* scratch = granted<char>(context, embedding_backward_bytes(N, C), "embedding_backward");
  auto* order = reinterpret_cast<int32_t*>(scratch);
  const Crossing crossing{reinterpret_cast<float*>(scratch + order_bytes),
                          reinterpret_cast<float*>(scratch + order_bytes) + chunks * C};
  launch(context, rank_kernel, dim3(static_cast<unsigned>(divide_up(N, rank_rows))), rank_rows * rank_parts,
         0, lookup, order);
  with_element(dy.dtype, [&]<class T>() {
    const auto add_chunks = [&]<class G>() {
      with_width<T>(is_vectorizable(dy) && takes_vectors(dtable, vector_width<T>), [&]<int width>() {
        const dim3 grid(static_cast<unsigned>(chunks),
                        static_cast<unsigned>(divide_up(C, chunk_threads * width)));
        launch(context, chunk_kernel<T, G, width>, grid, chunk_threads, 0, lookup, order, matrix<const T>(dy),
               matrix<G>(dtable), crossing, C);
      });
      launch(context, crossing_kernel<G>,
             dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(divide_up(C, run_threads))),
             run_threads, 0, lookup, order, crossing, matrix<G>(dtable), C);
    };
    if (dtable.dtype == dy.dtype) return add_chunks.template operator()<T>();
    add_chunks.template operator()<float>();
  });
}

}  // namespace ptrain::cuda
