// Where each weight of a rank's stages lies in its flat parameter buffer; gradients, moments and master
// follow the same offsets. Offsets count elements. Pure: nothing is allocated here.
#pragma once

#include <vector>

#include "parallel/plan/layout.h"
#include "parallel/plan/workload.h"

namespace ptrain {

struct FlatPiece {
  int unit = 0;   // index into Workload::units
  int index = 0;  // index into Unit::pieces
  Box box;        // the part of the global tensor that the rank holds, row-major in the buffer
  Range elements;
  std::vector<Range> counted;  // of the buffer: what this rank counts in norms; empty for a tied copy
};

struct FlatBucket {
  int chunk = 0;
  Range units;
  Range elements;  // count is a multiple of data * flat_alignment; padding stays zero
};

inline constexpr int64_t flat_alignment = 16;  // elements: 64 bytes of f32, 32 of bf16

/// Chunk by chunk, units lie one after another, ascending; in a unit the pieces in table order, fusion groups
/// without gaps, each group at a multiple of flat_alignment. Frozen pieces come behind all buckets.
struct FlatLayout {
  std::vector<FlatPiece> pieces;    // in the order of units and tables
  std::vector<FlatBucket> buckets;  // chunk by chunk, of a chunk in the order in which backward finishes them
  std::vector<int> first_bucket;    // [chunk]
  int64_t trainable_elements = 0;   // size of gradients: buckets with their padding
  int64_t elements = 0;             // size of parameters: trainable, then frozen
  int data = 1;                     // ranks that share a bucket

  const FlatPiece& piece(int unit, int index) const;
  /// The bucket that an action of `chunk` calls `bucket`.
  int bucket_of(int chunk, int bucket) const { return first_bucket[static_cast<size_t>(chunk)] + bucket; }
  /// The bucket that holds a unit of the rank.
  int bucket_of_unit(int64_t unit) const;
};

/// What a rank holds of one stage.
struct FlatChunk {
  Range units;
  std::vector<Range> bucket_units;  // as of cut_buckets
};

/// Layout of the chunks, whose units ascend from chunk to chunk, on `rank`. Only the rank's tensor coordinate
/// matters: all ranks of a data group have the same layout.
FlatLayout flat_layout(const Workload& workload, const std::vector<FlatChunk>& chunks, const Mesh& mesh,
                       int rank);

/// The part of a bucket that data coordinate `data` reduces, updates and (ZeRO-1) keeps the state of: equal
/// parts, one behind the other.
Range shard_of(const FlatLayout& layout, int bucket, int data);
/// Elements of all shards of one data coordinate.
int64_t shard_elements(const FlatLayout& layout);
/// The same elements in a buffer that holds the shards of one data coordinate alone, in the order of the flat
/// layout.
Range compact_shard(const FlatLayout& layout, int bucket);

/// All buckets in the order in which the next forward reads them.
std::vector<int> exchange_order(const FlatLayout& layout);

/// `part` of the box `local` as ranges of local's row-major elements, ascending, neighbours merged.
std::vector<Range> flat_ranges(const Box& local, const Box& part);

/// What is counted within `elements` of the buffer, ascending.
std::vector<Range> counted_in(const FlatLayout& layout, Range elements);

/// The common part of two ranges; count 0 where they do not touch.
Range intersection(Range a, Range b);

/// Calls `each(row_major_begin, local_offset, count)` for the runs of `box` that are contiguous in the global
/// tensor: global element row_major_begin + i is the box's element local_offset + i.
template <class Each>
void for_each_run(const Shape& shape, const Box& box, Each each) {
  const int64_t width = box.extent.columns();
  const int64_t rows = box.extent.rows();
  for (int64_t row = 0; row < rows; ++row) {
    int64_t index = row, global = 0, stride = shape.columns();
    for (int dim = shape.dims() - 2; dim >= 0; --dim) {  // the row's global number, dimension by dimension
      global += (index % box.extent[dim] + box.begin[static_cast<size_t>(dim)]) * stride;
      index /= box.extent[dim];
      stride *= shape[dim];
    }
    each(global + box.begin[static_cast<size_t>(shape.dims() - 1)], row * width, width);
  }
}

}  // namespace ptrain
