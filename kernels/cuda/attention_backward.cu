// Attention backward on a GPU: the scores of each tile are computed again from the log-sum-exp. Two passes,
// so that no sum needs atomics and bits are the same every time: one holds queries and sums dq over passing
// keys, one holds keys and sums dk and dv over the passing queries of all heads of the group. After Dao:
// "FlashAttention-2" (2023). cuDNN takes the cases that it serves.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// What a block holds while tiles of the other pass by: queries with the gradients of their outputs, or keys
/// with their values.
enum class Held { queries, keys };

template <class T, int columns, Held held>
struct BackwardShape {
  static constexpr bool is_large = columns * sizeof(T) > 256;  // shared memory is short
  static constexpr int warps = columns * sizeof(T) > 512 ? 2 : 4, threads = warps * warp_size;
  static constexpr int rows = 16 * warps;  // held
  static constexpr int passing = is_large ? 16 : 32;
  static constexpr int stages = is_large ? 1 : 2;  // passing tiles that are in use or on their way
  // Sums of dk and dv over 256 columns are more than registers hold: then a block has half of the columns.
  static constexpr int parts = held == Held::keys && columns > 128 ? 2 : 1;
  static constexpr int summed = columns / parts;
  static constexpr int queries = held == Held::queries ? rows : passing;
  static constexpr int query_stages = held == Held::queries ? 1 : stages;
};

/// What a tile's scores need of its queries.
template <int queries>
struct QueryValues {
  float lse[queries];
  float delta[queries];
  int start[queries];  // of the document
};

/// A block's shared memory.
template <class T, int columns, Held held>
struct BackwardMemory {
  using Shape = BackwardShape<T, columns, held>;
  T held_rows[2][Shape::rows * Tile<T, columns>::stride];                       // q, dout or k, v
  T passing_rows[Shape::stages][2][Shape::passing * Tile<T, columns>::stride];  // k, v or q, dout
  QueryValues<Shape::queries> queries[Shape::query_stages];
  int last[warp_size];
};

template <class T>
struct BackwardCall {
  AttentionSizes sizes;
  Heads<const T> q, k, v, dout;
  const float *lse, *delta;  // (B, H, T)
  Heads<T> dq, dk, dv;
};

/// The place of a block: head is a query head where queries are held, else a key-value head.
struct Place {
  int b, head, first;
};

/// The last query that sees one of the keys first .. first + count - 1; by the whole block.   shared: an int
/// a warp.
template <int threads>
__device__ int last_query(const AttentionSizes& sizes, int b, int first, int count, int* shared) {
  const int window_end = first + count - 1 + sizes.window, end = sizes.T;
  if (sizes.document_start == nullptr) return sizes.window > 0 && window_end < end ? window_end - 1 : end - 1;
  int last = first;
  for (int query = first + static_cast<int>(threadIdx.x); query < end; query += threads)
    if (sizes.first_key(b, query) < first + count) last = query;
  for (int offset = warp_size / 2; offset > 0; offset /= 2)
    last = std::max(last, __shfl_xor_sync(all_lanes, last, offset));
  if (threadIdx.x % warp_size == 0) shared[threadIdx.x / warp_size] = last;
  __syncthreads();
  for (int warp = 0; warp < threads / warp_size; ++warp) last = std::max(last, shared[warp]);
  return last;
}

/// Starts to copy what the scores need of queries first .. first + count - 1 of head h.
template <int count, int threads, class T>
__device__ void load_query_values(const BackwardCall<T>& call, int b, int h, int first,
                                  QueryValues<count>& to) {
  const AttentionSizes& sizes = call.sizes;
  const int64_t head = (static_cast<int64_t>(b) * sizes.H + h) * sizes.T,
                row = static_cast<int64_t>(b) * sizes.T;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) {
    const bool is_there = first + i < sizes.T;
    const int query = is_there ? first + i : 0;
    copy_async<4>(&to.lse[i], call.lse + head + query, is_there);
    copy_async<4>(&to.delta[i], call.delta + head + query, is_there);
    const bool has_start = is_there && sizes.document_start != nullptr;
    copy_async<4>(&to.start[i],
                  has_start ? static_cast<const void*>(sizes.document_start + row + query) : call.lse,
                  has_start);
  }
}

/// Which pairs of a warp's held rows and a passing tile's rows see each other.
struct Sight {
  int held, passing;  // time of the first row
  bool is_cut;        // some pairs do not
};

/// scores: raw in, probabilities out.   gradients: of the probabilities in, of the scores out. Without the
/// scale, which the sums get in the end.
template <Held held, int n, int queries>
__device__ void softmax_backward(const AttentionSizes& sizes, const Sight& sight, int own_row,
                                 const QueryValues<queries>& values, Accumulator<1, n>& scores,
                                 Accumulator<1, n>& gradients) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < n; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = g + e / 2 * 8, column = 8 * j + 2 * t + e % 2;
      const int at = held == Held::queries ? own_row + row : column;
      float p = power_of_two((scores[0][j][e] * sizes.scale - values.lse[at]) * log2_of_e);
      if (sight.is_cut) {
        const int query = held == Held::queries ? sight.held + row : sight.passing + column;
        const int key = held == Held::queries ? sight.passing + column : sight.held + row;
        const bool is_in_window = sizes.window == 0 || key > query - sizes.window;
        if (key > query || key < values.start[at] || !is_in_window) p = 0;
      }
      scores[0][j][e] = p;
      gradients[0][j][e] = p * (gradients[0][j][e] - values.delta[at]);
    }
  }
}

/// The tiles that pass: `heads` times [begin, end).
struct Passing {
  int head, heads;
  int begin, end;
  int certain;  // keys from here on are in the document and window of every held query
};

template <class T, int columns, Held held>
__device__ Passing passing_tiles(const BackwardCall<T>& call, const Place& place, int* shared) {
  using Shape = BackwardShape<T, columns, held>;
  const AttentionSizes& sizes = call.sizes;
  if constexpr (held == Held::queries) {
    const KeyRange range = first_keys(sizes, place.b, place.first, Shape::rows);
    return {sizes.kv_head(place.head), 1, range.lowest / Shape::passing * Shape::passing,
            std::min(place.first + Shape::rows, sizes.T), range.highest};
  } else {
    const int last = last_query<Shape::threads>(sizes, place.b, place.first,
                                                std::min(int{Shape::rows}, sizes.T - place.first), shared);
    const int head = std::max(0, place.head * sizes.group - sizes.first_head);
    const int end = std::min(sizes.H, (place.head + 1) * sizes.group - sizes.first_head);
    return {head, std::max(0, end - head), place.first, last + 1, 0};
  }
}

/// Starts to copy the passing tile i.
template <class T, int columns, Held held>
__device__ void load_passing(const BackwardCall<T>& call, const Place& place, const Passing& passing, int i,
                             BackwardMemory<T, columns, held>& memory) {
  using Shape = BackwardShape<T, columns, held>;
  const AttentionSizes& sizes = call.sizes;
  const int tiles = (passing.end - passing.begin + Shape::passing - 1) / Shape::passing;
  const int head = passing.head + i / tiles, first = passing.begin + i % tiles * Shape::passing;
  const bool are_keys = held == Held::queries;
  auto& to = memory.passing_rows[i % Shape::stages];
  load_tile<T, columns, Shape::passing, Shape::threads>(
      to[0], (are_keys ? call.k : call.q).of(place.b, head, sizes.T, sizes.D), first, sizes.T, sizes.D,
      sizes.is_vectorizable);
  load_tile<T, columns, Shape::passing, Shape::threads>(
      to[1], (are_keys ? call.v : call.dout).of(place.b, head, sizes.T, sizes.D), first, sizes.T, sizes.D,
      sizes.is_vectorizable);
  if constexpr (held == Held::keys)
    load_query_values<Shape::passing, Shape::threads>(call, place.b, head, first,
                                                      memory.queries[i % Shape::stages]);
  commit_copies();
}

/// Starts to copy what the block holds.
template <class T, int columns, Held held>
__device__ void load_held(const BackwardCall<T>& call, const Place& place,
                          BackwardMemory<T, columns, held>& memory) {
  using Shape = BackwardShape<T, columns, held>;
  const AttentionSizes& sizes = call.sizes;
  const bool are_keys = held == Held::keys;
  load_tile<T, columns, Shape::rows, Shape::threads>(
      memory.held_rows[0], (are_keys ? call.k : call.q).of(place.b, place.head, sizes.T, sizes.D),
      place.first, sizes.T, sizes.D, sizes.is_vectorizable);
  load_tile<T, columns, Shape::rows, Shape::threads>(
      memory.held_rows[1], (are_keys ? call.v : call.dout).of(place.b, place.head, sizes.T, sizes.D),
      place.first, sizes.T, sizes.D, sizes.is_vectorizable);
  if constexpr (held == Held::queries)
    load_query_values<Shape::rows, Shape::threads>(call, place.b, place.head, place.first, memory.queries[0]);
}

/// What a warp sums: ds times the first passing rows (dq or dk), and p times the second (dv; not for
/// queries).
template <class T, int columns, Held held>
struct Sums {
  static constexpr int tiles = BackwardShape<T, columns, held>::summed / 8;
  Accumulator<1, tiles> first;
  Accumulator<1, held == Held::keys ? tiles : 1> second;
};

/// The addends of passing tile i to a warp's sums.
template <class T, int columns, Held held>
__device__ void add_tile(const AttentionSizes& sizes, const Sight& sight, int own_row, int i, int part,
                         const BackwardMemory<T, columns, held>& memory, Sums<T, columns, held>& sums) {
  using Shape = BackwardShape<T, columns, held>;
  constexpr int n = Shape::passing / 8, stride = Tile<T, columns>::stride;
  const auto& passing = memory.passing_rows[i % Shape::stages];
  Accumulator<1, n> scores, gradients;
  clear<1, n>(scores);
  clear<1, n>(gradients);
  multiply_by_rows<T, columns>(scores, memory.held_rows[0] + own_row * stride, passing[0]);
  multiply_by_rows<T, columns>(gradients, memory.held_rows[1] + own_row * stride, passing[1]);
  softmax_backward<held>(sizes, sight, own_row, memory.queries[i % Shape::query_stages], scores, gradients);
  multiply_by_columns<T, columns>(sums.first, gradients, passing[0] + part * Shape::summed);
  if constexpr (held == Held::keys)
    multiply_by_columns<T, columns>(sums.second, scores, passing[1] + part * Shape::summed);
}

/// Writes a warp's sums by way of the tile that it held.
template <class T, int columns, Held held, int n>
__device__ void write_sums(const AttentionSizes& sizes, const Place& place, int own_row, int part,
                           float factor, const Accumulator<1, n>& sums, T* tile, Heads<T> to) {
  tile += own_row * Tile<T, columns>::stride;
  write_tile<T, columns>(tile, sums, {{factor, factor}});
  __syncwarp();
  store_rows<T, 8 * n, columns>(tile, to.of(place.b, place.head, sizes.T, sizes.D), place.first + own_row, 16,
                                sizes.T, part * 8 * n, sizes.D, sizes.is_vectorizable);
}

/// Blocks: x a head (query or key-value), y a tile of what is held, the one with most work first, z a row of
/// the batch and a part of the columns.
template <class T, int columns, Held held>
__global__ void __launch_bounds__(BackwardShape<T, columns, held>::threads)
    backward_kernel(BackwardCall<T> call) {
  using Shape = BackwardShape<T, columns, held>;
  const AttentionSizes& sizes = call.sizes;
  const int tile = static_cast<int>(held == Held::queries ? gridDim.y - 1 - blockIdx.y : blockIdx.y);
  const int part = static_cast<int>(blockIdx.z) % Shape::parts;
  const Place place = {static_cast<int>(blockIdx.z) / Shape::parts, static_cast<int>(blockIdx.x),
                       tile * Shape::rows};
  const int own_row = static_cast<int>(threadIdx.x) / warp_size * 16, own = place.first + own_row;
  auto& memory = *dynamic_shared<BackwardMemory<T, columns, held>>();
  // 1. What is held and the first passing tile are on their way.
  load_held(call, place, memory);
  const Passing passing = passing_tiles<T, columns, held>(call, place, memory.last);
  const int tiles = (passing.end - passing.begin + Shape::passing - 1) / Shape::passing;
  const int count = passing.heads * tiles;
  if (count > 0) {
    load_passing(call, place, passing, 0, memory);
  } else {
    commit_copies();
  }
  // 2. Tiles pass by. With two stages the next is copied while one is in use.
  Sums<T, columns, held> sums;
  clear<1, Sums<T, columns, held>::tiles>(sums.first);
  if constexpr (held == Held::keys) clear<1, Sums<T, columns, held>::tiles>(sums.second);
  for (int i = 0; i < count; ++i) {
    wait_for_copies<0>();
    __syncthreads();  // the tile is there; the one before is no longer read
    if (Shape::stages == 2 && i + 1 < count) load_passing(call, place, passing, i + 1, memory);
    const int first = passing.begin + i % tiles * Shape::passing;
    Sight sight = {own, first, false};
    bool is_seen;
    if constexpr (held == Held::queries) {
      is_seen = own < sizes.T && first <= own + 15;
      sight.is_cut = first + Shape::passing - 1 > own || first < passing.certain;
    } else {
      is_seen = own < sizes.T && first + Shape::passing - 1 >= own;
      sight.is_cut = own + 15 > first || sizes.document_start != nullptr || sizes.window > 0;
    }
    if (is_seen) add_tile(sizes, sight, own_row, i, part, memory, sums);
    if (Shape::stages == 1) {
      __syncthreads();  // the tile is no longer read
      if (i + 1 < count) load_passing(call, place, passing, i + 1, memory);
    }
  }
  // 3. Results take the place of what was held.
  wait_for_copies<0>();
  __syncthreads();  // without a tile no one has waited yet for what is held
  if (own >= sizes.T) return;
  write_sums<T, columns, held>(sizes, place, own_row, part, sizes.scale, sums.first, memory.held_rows[0],
                               held == Held::queries ? call.dq : call.dk);
  if constexpr (held == Held::keys)
    write_sums<T, columns, held>(sizes, place, own_row, part, 1, sums.second, memory.held_rows[1], call.dv);
}

constexpr int delta_threads = 256, delta_lanes = 8;  // lanes that share a row of a head

/// delta = the row sums of out * dout.   Blocks: x some queries, y a head, z a row of the batch.
template <class T>
__global__ void delta_kernel(AttentionSizes sizes, Heads<const T> out, Heads<const T> dout, float* delta) {
  constexpr int width = vector_width<T>;
  const int lane = static_cast<int>(threadIdx.x) % delta_lanes;
  const int query = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / delta_lanes);
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  float sum = 0;
  if (query < sizes.T) {
    const T* x = out.of(b, h, sizes.T, sizes.D).row(query);
    const T* y = dout.of(b, h, sizes.T, sizes.D).row(query);
    if (sizes.is_vectorizable) {
      for (int d = lane * width; d < sizes.D; d += delta_lanes * width) {
        const auto a = load_vector(x + d), c = load_vector(y + d);
        for (int i = 0; i < width; ++i) sum += to_float(a.at[i]) * to_float(c.at[i]);
      }
    } else {
      for (int d = lane; d < sizes.D; d += delta_lanes) sum += to_float(x[d]) * to_float(y[d]);
    }
  }
  for (int offset = delta_lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(all_lanes, sum, offset);
  if (lane == 0 && query < sizes.T) delta[(static_cast<int64_t>(b) * sizes.H + h) * sizes.T + query] = sum;
}

template <Held held, class T, int columns>
void launch_pass(Context& context, const AttentionDims& dims, const BackwardCall<T>& call) {
  using Shape = BackwardShape<T, columns, held>;
  constexpr int64_t shared_bytes = sizeof(BackwardMemory<T, columns, held>);
  static_assert(shared_bytes <= most_shared_bytes);
  const dim3 grid(static_cast<unsigned>(held == Held::queries ? dims.H : dims.K),
                  static_cast<unsigned>(divide_up(dims.T, Shape::rows)),
                  static_cast<unsigned>(dims.B * Shape::parts));
  launch(context, backward_kernel<T, columns, held>, grid, Shape::threads, shared_bytes, call);
}

}  // namespace

void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv) {
  if (cudnn_attention_backward(context, dims, q, k, v, document_start, out, lse, dout, dq, dk, dv)) return;
  const AttentionSizes sizes =
      attention_sizes(dims, document_start, has_vector_heads(dims, {q, k, v, out, dout, dq, dk, dv}));
  with_head_size(q.dtype, dims.D, [&]<class T, int columns>() {
    const dim3 grid(static_cast<unsigned>(divide_up(dims.T * delta_lanes, delta_threads)),
                    static_cast<unsigned>(dims.H), static_cast<unsigned>(dims.B));
    launch(context, delta_kernel<T>, grid, delta_threads, 0, sizes, heads<const T>(out), heads<const T>(dout),
           elements<float>(delta));
    const BackwardCall<T> call = {sizes,
                                  heads<const T>(q),
                                  heads<const T>(k),
                                  heads<const T>(v),
                                  heads<const T>(dout),
                                  elements<float>(lse),
                                  elements<float>(delta),
                                  heads<T>(dq),
                                  heads<T>(dk),
                                  heads<T>(dv)};
    launch_pass<Held::queries, T, columns>(context, dims, call);
    launch_pass<Held::keys, T, columns>(context, dims, call);
  });
}

}  // namespace ptrain::cuda
