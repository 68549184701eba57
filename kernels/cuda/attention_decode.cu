// Attention of one new token a sequence on a GPU: bound by reading the cache once. The positions of a
// sequence are split over blocks, so that one sequence fills a GPU; what they found is combined in a fixed
// order. Not for prefill: that is attention_forward.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

constexpr int threads = 128;
constexpr int keys_at_once = 4;  // a thread loads so many keys and values before it uses them

/// A few lanes share a key: each has 16 bytes of it, or some times 16.
template <class T, int columns>
struct DecodeShape {
  static constexpr int width = vector_width<T>, chunks = columns / width;
  static constexpr int lanes = chunks > 16 ? 32 : chunks > 8 ? 16 : chunks > 4 ? 8 : 4;
  static constexpr int own_chunks = (chunks + lanes - 1) / lanes;
  static constexpr int own_columns = own_chunks * width;
  static constexpr int teams = threads / lanes;  // keys that a block reads side by side
};

template <class T>
struct DecodeCall {
  AttentionSizes sizes;  // T: positions of the cache
  Rows<const T> q, keys, values;
  const int32_t* lengths;
  float* partial;  // (B, H, splits, D + 2): sums over a split's values, their largest score, sum of weights
  int splits;

  __device__ float* found(int b, int h, int split) const {
    return partial + ((static_cast<int64_t>(b) * sizes.H + h) * splits + split) * (sizes.D + 2);
  }
};

/// A lane's elements of a row, as floats; zeros beyond D.
template <class T, int columns>
__device__ void load_row(const T* row, int D, bool is_vectorizable,
                         float (&to)[DecodeShape<T, columns>::own_columns]) {
  using Shape = DecodeShape<T, columns>;
#pragma unroll
  for (int i = 0; i < Shape::own_chunks; ++i) {
    const int column = (static_cast<int>(threadIdx.x) % Shape::lanes + i * Shape::lanes) * Shape::width;
    Vector<T, Shape::width> chunk = {};
    if (is_vectorizable && column < D) {
      chunk = load_vector(row + column);
    } else {
      for (int j = 0; j < Shape::width; ++j)
        if (column + j < D) chunk.at[j] = row[column + j];
    }
#pragma unroll
    for (int j = 0; j < Shape::width; ++j) to[i * Shape::width + j] = to_float(chunk.at[j]);
  }
}

/// The running softmax of a team of lanes, one for each query head that reads the keys.
template <int heads, int own_columns>
struct TeamSoftmax {
  float query[heads][own_columns];  // times the scale, to base 2
  float out[heads][own_columns];
  float largest[heads], sum[heads];
};

/// Some keys and values of a team pass by; is_there says which exist.
template <int lanes, int heads, int own_columns>
__device__ void add_keys(TeamSoftmax<heads, own_columns>& team,
                         const float (&keys)[keys_at_once][own_columns],
                         const float (&values)[keys_at_once][own_columns],
                         const bool (&is_there)[keys_at_once]) {
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    float scores[keys_at_once], largest = team.largest[h];
#pragma unroll
    for (int s = 0; s < keys_at_once; ++s) {
      float score = 0;
#pragma unroll
      for (int d = 0; d < own_columns; ++d) score += team.query[h][d] * keys[s][d];
#pragma unroll
      for (int offset = lanes / 2; offset > 0; offset /= 2)
        score += __shfl_xor_sync(all_lanes, score, offset);
      scores[s] = is_there[s] ? score : -INFINITY;
      largest = fmaxf(largest, scores[s]);
    }
    const float shift = largest == -INFINITY ? 0 : largest;
    const float shrink = power_of_two(team.largest[h] - shift);
    team.largest[h] = largest;
    team.sum[h] *= shrink;
#pragma unroll
    for (int d = 0; d < own_columns; ++d) team.out[h][d] *= shrink;
#pragma unroll
    for (int s = 0; s < keys_at_once; ++s) {
      const float weight = power_of_two(scores[s] - shift);
      team.sum[h] += weight;
#pragma unroll
      for (int d = 0; d < own_columns; ++d) team.out[h][d] += weight * values[s][d];
    }
  }
}

/// What the teams of a block leave to be combined.
template <int columns, int teams, int heads>
struct DecodeMemory {
  float out[heads][teams][columns];
  float largest[heads][teams], sum[heads][teams];
};

/// The positions that a block reads.
struct Slice {
  int begin, end;
};

/// Equal slices of the positions that the new token sees; the last ones may be empty.
__device__ inline Slice slice_of(const AttentionSizes& sizes, int length, int split, int splits,
                                 int multiple) {
  const int first = sizes.window > 0 && length > sizes.window ? length - sizes.window : 0;
  const int each = ((length - first + splits - 1) / splits + multiple - 1) / multiple * multiple;
  const int64_t begin = first + static_cast<int64_t>(split) * each;
  return {static_cast<int>(std::min<int64_t>(begin, length)),
          static_cast<int>(std::min<int64_t>(begin + each, length))};
}

/// Blocks: x a slice of the positions, y a key-value head and up to `heads` of its query heads, z a sequence.
template <class T, int columns, int heads>
__global__ void __launch_bounds__(threads) decode_kernel(DecodeCall<T> call, int head_blocks) {
  using Shape = DecodeShape<T, columns>;
  using Memory = DecodeMemory<Shape::lanes * Shape::own_columns, Shape::teams, heads>;
  const AttentionSizes& sizes = call.sizes;
  const int b = static_cast<int>(blockIdx.z), split = static_cast<int>(blockIdx.x);
  const int kv = static_cast<int>(blockIdx.y) / head_blocks;
  const int head =
      std::max(0, kv * sizes.group - sizes.first_head) + static_cast<int>(blockIdx.y) % head_blocks * heads;
  const int count = std::min(heads, std::min(sizes.H, (kv + 1) * sizes.group - sizes.first_head) - head);
  if (count <= 0) return;
  const Slice slice = slice_of(sizes, call.lengths[b], split, call.splits, Shape::teams);
  const int thread = static_cast<int>(threadIdx.x), own_team = thread / Shape::lanes;
  if (slice.begin >= slice.end) {
    if (thread < count) {
      float* found = call.found(b, head + thread, split) + sizes.D;
      found[0] = -INFINITY, found[1] = 0;
    }
    return;
  }
  // 1. The queries.
  TeamSoftmax<heads, Shape::own_columns> team;
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    const int from = head + std::min(h, count - 1);  // heads that are none repeat the last
    load_row<T, columns>(call.q.row(b) + static_cast<int64_t>(from) * sizes.D, sizes.D, sizes.is_vectorizable,
                         team.query[h]);
#pragma unroll
    for (int d = 0; d < Shape::own_columns; ++d) {
      team.query[h][d] *= sizes.scale * log2_of_e;
      team.out[h][d] = 0;
    }
    team.largest[h] = -INFINITY;
    team.sum[h] = 0;
  }
  // 2. Every team takes its keys.
  const int64_t first_row = static_cast<int64_t>(b) * sizes.T;
  const auto row_of = [&](Rows<const T> of, int key) {
    return of.data + (first_row + key) * of.stride + static_cast<int64_t>(kv) * sizes.D;
  };
  for (int base = slice.begin; base < slice.end; base += keys_at_once * Shape::teams) {
    float keys[keys_at_once][Shape::own_columns], values[keys_at_once][Shape::own_columns];
    bool is_there[keys_at_once];
#pragma unroll
    for (int s = 0; s < keys_at_once; ++s) {
      const int key = base + s * Shape::teams + own_team;
      is_there[s] = key < slice.end;
      const int safe = is_there[s] ? key : slice.begin;
      load_row<T, columns>(row_of(call.keys, safe), sizes.D, sizes.is_vectorizable, keys[s]);
      load_row<T, columns>(row_of(call.values, safe), sizes.D, sizes.is_vectorizable, values[s]);
    }
    add_keys<Shape::lanes>(team, keys, values, is_there);
  }
  // 3. The teams together.
  auto& memory = *dynamic_shared<Memory>();
#pragma unroll
  for (int h = 0; h < heads; ++h) {
#pragma unroll
    for (int d = 0; d < Shape::own_columns; ++d)
      memory.out[h][own_team][(thread % Shape::lanes + d / Shape::width * Shape::lanes) * Shape::width +
                              d % Shape::width] = team.out[h][d];
    if (thread % Shape::lanes == 0) {
      memory.largest[h][own_team] = team.largest[h];
      memory.sum[h][own_team] = team.sum[h];
    }
  }
  __syncthreads();
  for (int i = thread; i < count * sizes.D; i += threads) {
    const int h = i / sizes.D, d = i % sizes.D;
    float largest = -INFINITY, sum = 0, out = 0;
    for (int other = 0; other < Shape::teams; ++other) largest = fmaxf(largest, memory.largest[h][other]);
    for (int other = 0; other < Shape::teams; ++other) {
      const float weight = power_of_two(memory.largest[h][other] - largest);
      sum += weight * memory.sum[h][other];
      out += weight * memory.out[h][other][d];
    }
    float* found = call.found(b, head + h, split);
    found[d] = out;
    if (d == 0) found[sizes.D] = largest, found[sizes.D + 1] = sum;
  }
}

/// out = what the splits found, together.   Blocks: x a head, y a sequence.
template <class T>
__global__ void combine_kernel(DecodeCall<T> call, Rows<T> out) {
  const AttentionSizes& sizes = call.sizes;
  const int h = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y), D = sizes.D;
  float largest = -INFINITY;
  for (int split = 0; split < call.splits; ++split) largest = fmaxf(largest, call.found(b, h, split)[D]);
  for (int d = static_cast<int>(threadIdx.x); d < D; d += threads) {
    float sum = 0, value = 0;
    for (int split = 0; split < call.splits; ++split) {
      const float* found = call.found(b, h, split);
      if (found[D + 1] == 0) continue;  // an empty slice left no values
      const float weight = power_of_two(found[D] - largest);
      sum += weight * found[D + 1];
      value += weight * found[d];
    }
    out.row(b)[static_cast<int64_t>(h) * D + d] = from_float<T>(value / sum);
  }
}

template <class T, int columns, int heads>
void decode(Context& context, const AttentionDims& dims, const DecodeCall<T>& call, Tensor out) {
  using Shape = DecodeShape<T, columns>;
  using Memory = DecodeMemory<Shape::lanes * Shape::own_columns, Shape::teams, heads>;
  const int64_t head_blocks = divide_up(std::min(dims.group, dims.H), heads);
  const dim3 grid(static_cast<unsigned>(call.splits), static_cast<unsigned>(dims.K * head_blocks),
                  static_cast<unsigned>(dims.B));
  launch(context, decode_kernel<T, columns, heads>, grid, threads, static_cast<int64_t>(sizeof(Memory)), call,
         static_cast<int>(head_blocks));
  launch(context, combine_kernel<T>, dim3(static_cast<unsigned>(dims.H), static_cast<unsigned>(dims.B)),
         threads, 0, call, Rows<T>{elements<T>(out), out.row_stride});
}

}  // namespace

void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out) {
  AttentionDims of_cache = dims;
  of_cache.T = keys.shape[1];
  of_cache.has_documents = false;
  // A slice shorter than what a block reads at once would leave threads idle.
  const int splits =
      static_cast<int>(std::min(decode_splits(dims.B, dims.K), divide_up(of_cache.T, 2 * warp_size)));
  const int64_t scratch = dims.B * dims.H * splits * (dims.D + 2) * size_bytes(DType::f32);
  check(context.scratch.bytes() >= scratch,
        "attention_decode of {} sequences with {} heads of {} needs {} bytes of scratch, granted are {}",
        dims.B, dims.H, dims.D, scratch, context.scratch.bytes());
  with_head_size(q.dtype, dims.D, [&]<class T, int size>() {
    constexpr int columns = size > 64 && size < 128 ? 128 : size;  // lanes are a power of two
    const DecodeCall<T> call = {attention_sizes(of_cache, {}, has_vector_heads(dims, {q, keys, values})),
                                {elements<const T>(q), q.row_stride},
                                {elements<const T>(keys), keys.row_stride},
                                {elements<const T>(values), values.row_stride},
                                elements<const int32_t>(lengths),
                                static_cast<float*>(context.scratch.data),
                                splits};
    const int64_t shared = std::min(dims.group, dims.H);  // query heads that read the same keys
    if (shared == 1) return decode<T, columns, 1>(context, dims, call, out);
    if (shared == 2) return decode<T, columns, 2>(context, dims, call, out);
    if (shared <= 4) return decode<T, columns, 4>(context, dims, call, out);
    return decode<T, columns, 8>(context, dims, call, out);
  });
}

}  // namespace ptrain::cuda
