// What the attention kernels share: heads as rows of a matrix, tiles of them in shared memory, products of
// tiles with the result in registers, and who sees whom. 16-bit elements go through the matrix units, f32
// through plain multiplications in the same lane layout (see matrix.cuh): one kernel serves both.
// Letters: as in kernels/ops/attention.h; g and t: a lane of a warp is 4 * g + t.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "kernels/cuda/matrix.cuh"
#include "kernels/ops/attention.h"

namespace ptrain::cuda {

/// What a block may have on every GPU from sm_80 on.
constexpr int64_t most_shared_bytes = 99 * 1024;

constexpr float log2_of_e = 1.4426950408889634f;
constexpr float log_of_2 = 0.6931471805599453f;

/// Rows of one head: element (t, d) lies at data + t * stride + d.
template <class T>
struct Rows {
  T* data;
  int64_t stride;

  __device__ T* row(int t) const { return data + t * stride; }
};

/// All heads of a tensor (B*T, heads*D).
template <class T>
struct Heads {
  T* data;
  int64_t stride;

  __device__ Rows<T> of(int b, int head, int length, int D) const {
    return {data + static_cast<int64_t>(b) * length * stride + static_cast<int64_t>(head) * D, stride};
  }
};

template <class T>
Heads<T> heads(Tensor x) {
  return {elements<T>(x), x.row_stride};
}

/// AttentionDims as the kernels want them.
struct AttentionSizes {
  int T, H, K, D, group, first_head, window;
  float scale;
  bool is_vectorizable;           // all rows may be read and written 16 bytes at a time
  const int32_t* document_start;  // null: every one is 0

  __device__ int kv_head(int h) const { return (first_head + h) / group; }
  __device__ int start(int b, int query) const {
    return document_start == nullptr ? 0 : document_start[static_cast<int64_t>(b) * T + query];
  }
  /// The first key that a query sees, T for a query that is none.
  __device__ int first_key(int b, int query) const {
    if (query >= T) return T;
    const int from_window = window > 0 ? query - window + 1 : 0;
    const int from_document = start(b, query);
    return from_window > from_document ? from_window : from_document;
  }
};

/// Host: whether every head of every one of these may be read and written 16 bytes at a time.
inline bool has_vector_heads(const AttentionDims& dims, std::initializer_list<Tensor> tensors) {
  return std::ranges::all_of(
      tensors, [&](Tensor x) { return is_vectorizable(x) && dims.D * size_bytes(x.dtype) % 16 == 0; });
}

inline AttentionSizes attention_sizes(const AttentionDims& dims, Tensor document_start,
                                      bool is_vectorizable) {
  check(dims.scale > 0, "attention on a GPU has a scale above 0, not {}", dims.scale);
  const auto narrow = [](int64_t size) {
    check(size < int64_t{1} << 30, ExitCode::usage, "attention on a GPU has sizes below 2^30, not {}", size);
    return static_cast<int>(size);
  };
  return {narrow(dims.T),
          narrow(dims.H),
          narrow(dims.K),
          narrow(dims.D),
          narrow(dims.group),
          narrow(dims.first_head),
          narrow(std::min(dims.window, dims.T)),
          static_cast<float>(dims.scale),
          is_vectorizable,
          dims.has_documents ? elements<const int32_t>(document_start) : nullptr};
}

/// The keys that some, and that all, of `count` queries see are [lowest, ...) and [highest, ...).
struct KeyRange {
  int lowest, highest;
};

/// Of the queries first .. first + count - 1 that exist; called by a whole warp.
__device__ inline KeyRange first_keys(const AttentionSizes& sizes, int b, int first, int count) {
  int lowest = sizes.T, highest = 0;
  for (int i = static_cast<int>(threadIdx.x) % warp_size; i < count && first + i < sizes.T; i += warp_size) {
    const int key = sizes.first_key(b, first + i);
    lowest = key < lowest ? key : lowest;
    highest = key > highest ? key : highest;
  }
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    const int low = __shfl_xor_sync(all_lanes, lowest, offset);
    const int high = __shfl_xor_sync(all_lanes, highest, offset);
    lowest = low < lowest ? low : lowest;
    highest = high > highest ? high : highest;
  }
  return {lowest, highest};
}

/// A tile of rows in shared memory, each 16 bytes longer than its `columns` elements: eight rows that are
/// read together lie in different banks, since columns / 8 is even (f32: columns / 4).
template <class T, int columns>
struct Tile {
  static constexpr int stride = columns + vector_width<T>;
  static constexpr int row_bytes = stride * static_cast<int>(sizeof(T));
};

/// Starts to copy rows first .. first + rows - 1 into a tile; zeros for rows from `end` on and for columns
/// from D on. By all `threads` of the block.
template <class T, int columns, int rows, int threads>
__device__ inline void load_tile(T* tile, Rows<const T> from, int first, int end, int D,
                                 bool is_vectorizable) {
  constexpr int width = vector_width<T>, chunks = columns / width;
  for (int i = static_cast<int>(threadIdx.x); i < rows * chunks; i += threads) {
    const int row = i / chunks, column = i % chunks * width;
    const bool is_there = first + row < end && column < D;
    T* to = tile + row * Tile<T, columns>::stride + column;
    const T* source = is_there ? from.row(first + row) + column : from.data;
    if (is_vectorizable) {
      copy_async<16>(to, source, is_there);
    } else {
      for (int j = 0; j < width; ++j) to[j] = is_there && column + j < D ? source[j] : from_float<T>(0);
    }
  }
}

/// Writes `count` rows of a tile, or fewer where `end` comes first, as rows first ..; by one warp, whose
/// lanes must have met since the tile was written. `columns` of the tile go to columns column .. of the rows,
/// as far as D.
template <class T, int columns, int tile_columns>
__device__ inline void store_rows(const T* tile, Rows<T> to, int first, int count, int end, int column, int D,
                                  bool is_vectorizable) {
  constexpr int width = vector_width<T>, chunks = columns / width;
  for (int i = static_cast<int>(threadIdx.x) % warp_size; i < count * chunks; i += warp_size) {
    const int row = i / chunks, at = i % chunks * width;
    if (first + row >= end || column + at >= D) continue;
    const T* source = tile + row * Tile<T, tile_columns>::stride + at;
    T* target = to.row(first + row) + column + at;
    if (is_vectorizable) {
      store_vector(target, load_vector(source));
    } else {
      for (int j = 0; j < width && column + at + j < D; ++j) target[j] = source[j];
    }
  }
}

/// Products of 16 * m rows of a warp: c[i][j] holds rows 16 i .. 16 i + 15 and columns 8 j .. 8 j + 7 in the
/// lane layout of matrix.cuh.
template <int m, int n>
using Accumulator = float[m][n][4];

template <int m, int n>
__device__ inline void clear(Accumulator<m, n>& c) {
#pragma unroll
  for (int i = 0; i < m; ++i) {
#pragma unroll
    for (int j = 0; j < n; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) c[i][j][e] = 0;
    }
  }
}

/// c += a b': a: the warp's 16 * m rows of a tile, b: the 8 * n rows of another.
template <class T, int columns, int m, int n>
__device__ inline void multiply_by_rows(Accumulator<m, n>& c, const T* a, const T* b) {
  constexpr int stride = Tile<T, columns>::stride;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const T* a_row = a + lane % 16 * stride + lane / 16 * 8;
  const T* b_row = b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < columns; k += 16) {
    uint32_t rows[m][4];
#pragma unroll
    for (int i = 0; i < m; ++i) load_matrices(rows[i], a_row + i * 16 * stride + k);
#pragma unroll
    for (int j = 0; j < n; j += 2) {
      uint32_t others[4];
      load_matrices(others, b_row + j * 8 * stride + k);
#pragma unroll
      for (int i = 0; i < m; ++i) {
        mma<T>(c[i][j], rows[i], others[0], others[1]);
        mma<T>(c[i][j + 1], rows[i], others[2], others[3]);
      }
    }
  }
}

/// The same in f32.
template <class T, int columns, int m, int n>
requires std::is_same_v<T, float> __device__ inline void multiply_by_rows(Accumulator<m, n>& c, const T* a,
                                                                          const T* b) {
  constexpr int stride = Tile<T, columns>::stride;
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
  for (int k = 0; k < columns; k += 4) {
#pragma unroll
    for (int i = 0; i < m; ++i) {
      const Vector<float, 4> rows[2] = {load_vector(a + (16 * i + g) * stride + k),
                                        load_vector(a + (16 * i + g + 8) * stride + k)};
#pragma unroll
      for (int j = 0; j < n; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const Vector<float, 4> other = load_vector(b + (8 * j + 2 * t + e) * stride + k);
#pragma unroll
          for (int x = 0; x < 4; ++x) {
            c[i][j][e] += rows[0].at[x] * other.at[x];
            c[i][j][2 + e] += rows[1].at[x] * other.at[x];
          }
        }
      }
    }
  }
}

/// c += p b: p: products of 16 * m rows and 8 * k columns, rounded to T; b: the first 8 * n columns of 8 * k
/// rows of a tile.
template <class T, int columns, int m, int k, int n>
__device__ inline void multiply_by_columns(Accumulator<m, n>& c, const Accumulator<m, k>& p, const T* b) {
  constexpr int stride = Tile<T, columns>::stride;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const T* b_row = b + lane % 16 * stride + lane / 16 * 8;
#pragma unroll
  for (int x = 0; x < k; x += 2) {
    uint32_t rows[m][4];
#pragma unroll
    for (int i = 0; i < m; ++i) {
      rows[i][0] = pack<T>(p[i][x][0], p[i][x][1]);
      rows[i][1] = pack<T>(p[i][x][2], p[i][x][3]);
      rows[i][2] = pack<T>(p[i][x + 1][0], p[i][x + 1][1]);
      rows[i][3] = pack<T>(p[i][x + 1][2], p[i][x + 1][3]);
    }
#pragma unroll
    for (int j = 0; j < n; j += 2) {
      uint32_t others[4];
      load_matrices_transposed(others, b_row + x * 8 * stride + j * 8);
#pragma unroll
      for (int i = 0; i < m; ++i) {
        mma<T>(c[i][j], rows[i], others[0], others[1]);
        mma<T>(c[i][j + 1], rows[i], others[2], others[3]);
      }
    }
  }
}

/// The same in f32: a row of p lies in the four lanes of its group.
template <class T, int columns, int m, int k, int n>
requires std::is_same_v<T, float> __device__ inline void multiply_by_columns(Accumulator<m, n>& c,
                                                                             const Accumulator<m, k>& p,
                                                                             const T* b) {
  constexpr int stride = Tile<T, columns>::stride;
  const int lane = static_cast<int>(threadIdx.x) % warp_size, t = lane % 4;
#pragma unroll
  for (int x = 0; x < k; ++x) {
#pragma unroll 1  // few numbers in flight: an unrolled loop takes more registers than there are
    for (int owner = 0; owner < 4; ++owner) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float* b_row = b + (8 * x + 2 * owner + e) * stride + 2 * t;
#pragma unroll
        for (int i = 0; i < m; ++i) {
          const float upper = __shfl_sync(all_lanes, p[i][x][e], lane - t + owner);
          const float lower = __shfl_sync(all_lanes, p[i][x][2 + e], lane - t + owner);
#pragma unroll
          for (int j = 0; j < n; ++j) {
            const auto other = *reinterpret_cast<const Vector<float, 2>*>(b_row + 8 * j);
            c[i][j][0] += upper * other.at[0];
            c[i][j][1] += upper * other.at[1];
            c[i][j][2] += lower * other.at[0];
            c[i][j][3] += lower * other.at[1];
          }
        }
      }
    }
  }
}

/// Rounds the warp's 16 * m rows of c, times one factor a row (factors[i][0] for row 16 i + g, [1] for
/// 16 i + g + 8), into a tile.
template <class T, int columns, int m, int n>
__device__ inline void write_tile(T* tile, const Accumulator<m, n>& c, const float (&factors)[m][2]) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < m; ++i) {
#pragma unroll
    for (int j = 0; j < n; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        T* to = tile + (16 * i + g + 8 * half) * Tile<T, columns>::stride + 8 * j + 2 * t;
        const Vector<T, 2> both = {from_float<T>(c[i][j][2 * half] * factors[i][half]),
                                   from_float<T>(c[i][j][2 * half + 1] * factors[i][half])};
        *reinterpret_cast<Vector<T, 2>*>(to) = both;
      }
    }
  }
}

/// Calls body.operator()<T, columns>() with the element type and the head size rounded up to one that kernels
/// are made for.
template <class Body>
void with_head_size(DType dtype, int64_t D, const Body& body) {
  check(D <= 256, ExitCode::usage, "attention on a GPU has heads of at most 256 elements, the model has {}",
        D);
  with_element(dtype, [&]<class T>() {
    constexpr bool is_wide = std::is_same_v<T, float>;
    if (D <= 32) return body.template operator()<T, 32>();
    if (D <= 64) return body.template operator()<T, 64>();
    if (!is_wide && D <= 80) return body.template operator() < T, is_wide ? 128 : 80 > ();
    if (!is_wide && D <= 96) return body.template operator() < T, is_wide ? 128 : 96 > ();
    if (D <= 128) return body.template operator()<T, 128>();
    return body.template operator()<T, 256>();
  });
}

}  // namespace ptrain::cuda
