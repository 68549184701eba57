// What forward and backward of attention share: tiles of queries and keys, who sees whom, and copies of
// tiles. Scores of a tile are kept transposed, (keys, queries): a row of them is a few vectors of queries, so
// that maxima, sums and scale factors of queries are plain vectors and never cross lanes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/small_gemm.h"
#include "kernels/cpu/transpose.h"
#include "kernels/ops/attention.h"

namespace ptrain::cpu {

inline constexpr int64_t tile = 64;            // queries of a tile, and keys
inline constexpr int64_t max_head_size = 256;  // buffers of tiles lie on the stack
inline constexpr int64_t row_padding = 32;     // rows of `D` numbers are padded to a multiple of two vectors

constexpr int64_t padded(int64_t D) {
  return (D + row_padding - 1) / row_padding * row_padding;
}

/// Key-value head that query head h reads.
inline int64_t kv_head_of(const AttentionDims& dims, int64_t h) {
  return (dims.first_head + h) / dims.group;
}

/// One head of one row of tokens: element (t, d) lies at data + t * stride + d.
template <class T>
struct Head {
  T* data;
  int64_t stride;

  T* row(int64_t t) const { return data + t * stride; }
};

template <class T>
Head<T> head_of(const AttentionDims& dims, Tensor x, int64_t b, int64_t h) {
  return {x.as<T>() + b * dims.T * x.row_stride + h * dims.D, x.row_stride};
}

/// Room for one tile of widened rows.
template <class S>
struct WideRows {
  alignas(64) Wide<S> data[is_narrow<S> ? tile * max_head_size : 1];
};

/// Rows first .. first + count - 1 of a head as numbers of the arithmetic: where they lie, or widened.
template <class S>
Head<const Wide<S>> wide_rows(Head<const S> head, int64_t first, int64_t count, int64_t D,
                              WideRows<S>& room) {
  if constexpr (!is_narrow<S>) {
    return {head.row(first), head.stride};
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const S* from = head.row(first + i);
      float* to = room.data + i * D;
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) to[d] = widen(from[d]);
    }
    return {room.data, D};
  }
}

/// A head's row = numbers of the arithmetic, rounded.
template <class S>
void store_row(const Wide<S>* from, int64_t D, S* to) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) to[d] = convert<S>(from[d]);
}

/// The queries first .. first + count - 1 and what they see. Query i of the tile sees keys
/// first_key[i] .. last_key[i]; lanes beyond count see nothing.
struct QueryTile {
  int64_t first, count;
  int32_t first_key[tile], last_key[tile];
  int64_t lowest_first_key, highest_first_key;

  QueryTile(const AttentionDims& dims, const int32_t* document_start, int64_t b, int64_t first_query)
      : first(first_query), count(std::min(tile, dims.T - first_query)) {
    lowest_first_key = dims.T;
    highest_first_key = 0;
    for (int64_t i = 0; i < tile; ++i) {
      first_key[i] = static_cast<int32_t>(dims.T);
      last_key[i] = -1;
      if (i >= count) continue;
      const int64_t t = first + i;
      int64_t key = document_start[b * dims.T + t];
      if (dims.window > 0) key = std::max(key, t - dims.window + 1);
      first_key[i] = static_cast<int32_t>(key);
      last_key[i] = static_cast<int32_t>(t);
      lowest_first_key = std::min(lowest_first_key, key);
      highest_first_key = std::max(highest_first_key, key);
    }
  }

  /// Tiles of keys outside of [begin_key(), end_key()) are empty. begin_key() is a multiple of the tile, so
  /// that every query tile cuts the keys at the same places.
  int64_t begin_key() const { return lowest_first_key / tile * tile; }
  int64_t end_key() const { return first + count; }
  /// Some query of the tile does not see some of these keys.
  bool is_cut(int64_t key, int64_t keys) const {
    return count < tile || key < highest_first_key || key + keys - 1 > first;
  }
};

/// Sets the scores (keys, tile) that are not seen to `value`.
template <class T>
void mask_scores(const QueryTile& queries, int64_t key, int64_t keys, T value, T* scores) {
  for (int64_t s = 0; s < keys; ++s) {
    const int32_t position = static_cast<int32_t>(key + s);
    T* row = scores + s * tile;
#pragma omp simd
    for (int64_t i = 0; i < tile; ++i) {
      row[i] = position >= queries.first_key[i] && position <= queries.last_key[i] ? row[i] : value;
    }
  }
}

/// to: (D, tile) = the rows of the tile's queries, transposed; missing queries are zeros.
template <class T>
void copy_transposed(const QueryTile& queries, Head<const T> rows, int64_t D, T* to) {
  transpose(rows.data, rows.stride, queries.count, D, to, tile);
  if (queries.count == tile) return;
  for (int64_t d = 0; d < D; ++d) std::fill(to + d * tile + queries.count, to + (d + 1) * tile, T{0});
}

/// The head's rows of the tile's queries = from: (D, tile), transposed.   room: (tile, D) scratch
template <class S>
void store_transposed(const QueryTile& queries, const Wide<S>* from, int64_t D, Head<S> to, Wide<S>* room) {
  if constexpr (!is_narrow<S>) {
    transpose(from, tile, D, queries.count, to.row(queries.first), to.stride);
  } else {
    transpose(from, tile, D, queries.count, room, D);
    for (int64_t i = 0; i < queries.count; ++i) store_row(room + i * D, D, to.row(queries.first + i));
  }
}

/// The tile of queries is a few blocks of lanes; calls body(first lane, keys) for each block, where the
/// queries of the block see none of the keys after that many.
template <class T, class Body>
void for_lane_blocks(const QueryTile& queries, int64_t key, int64_t keys, const Body& body) {
  constexpr int64_t block = 2 * lanes<T>;
  for (int64_t lane = 0; lane < tile; lane += block) {
    body(lane, std::clamp<int64_t>(queries.first + lane + block - key, 0, keys));
  }
}

/// scores: (keys, tile) = rows of the keys from `key` on times queries (D, tile), where a query may see the
/// key.
template <class T>
void multiply_scores(const QueryTile& queries, Head<const T> rows, int64_t key, int64_t keys, int64_t D,
                     const T* columns, T* scores) {
  for_lane_blocks<T>(queries, key, keys, [&](int64_t lane, int64_t count) {
    small_gemm<Write::overwrite, T>(count, 2 * lanes<T>, D, {rows.data, rows.stride, 1}, columns + lane, tile,
                                    scores + lane, tile);
  });
}

/// sums: (D, tile) += rows of the keys from `key` on, transposed, times weights (keys, tile), where a query
/// may see the key.
template <class T>
void accumulate_rows(const QueryTile& queries, Head<const T> rows, int64_t key, int64_t keys, int64_t D,
                     const T* weights, T* sums) {
  for_lane_blocks<T>(queries, key, keys, [&](int64_t lane, int64_t count) {
    small_gemm<Write::accumulate, T>(D, 2 * lanes<T>, count, {rows.data, 1, rows.stride}, weights + lane,
                                     tile, sums + lane, tile);
  });
}

}  // namespace ptrain::cpu
