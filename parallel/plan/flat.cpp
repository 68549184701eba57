#include "parallel/plan/flat.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

enum class Which { trainable, frozen };

/// Places the pieces of one unit from `offset` on; returns the end. A new fusion group starts aligned.
int64_t place_unit(const Workload& workload, int unit, Which which, const Mesh& mesh, int rank,
                   int64_t offset, std::vector<FlatPiece>& pieces) {
  const std::vector<UnitPiece>& table = workload.units[static_cast<size_t>(unit)].pieces;
  int open_fusion = 0;
  for (size_t i = 0; i < table.size(); ++i) {
    const UnitPiece& entry = table[i];
    const Piece& piece = entry.piece;
    if (piece.is_trainable != (which == Which::trainable)) continue;
    const bool is_joined = entry.fusion != 0 && entry.fusion == open_fusion;
    if (!is_joined) offset = round_up(offset, flat_alignment);
    open_fusion = entry.fusion;
    FlatPiece placed{.unit = unit,
                     .index = static_cast<int>(i),
                     .box = local_box(piece.shape, piece.layout, mesh, rank),
                     .elements = {offset, 0},
                     .counted = {}};
    placed.elements.count = placed.box.numel();
    const auto part = counted_box(piece.shape, piece.layout, mesh, rank);
    if (part && !entry.is_tied_copy) {
      for (Range range : flat_ranges(placed.box, *part)) {
        placed.counted.push_back({offset + range.begin, range.count});
      }
    }
    offset += placed.elements.count;
    pieces.push_back(std::move(placed));
  }
  return offset;
}

/// The bucket that begins with `unit`, or -1.
int bucket_beginning_at(const std::vector<FlatBucket>& buckets, int64_t unit) {
  for (size_t i = 0; i < buckets.size(); ++i) {
    if (buckets[i].units.begin == unit) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

const FlatPiece& FlatLayout::piece(int unit, int index) const {
  for (const FlatPiece& candidate : pieces) {
    if (candidate.unit == unit && candidate.index == index) return candidate;
  }
  fail(ExitCode::defect, "piece {} of unit {} is not on this stage", index, unit);
}

int FlatLayout::bucket_of_unit(int64_t unit) const {
  for (size_t bucket = 0; bucket < buckets.size(); ++bucket) {
    if (unit >= buckets[bucket].units.begin && unit < buckets[bucket].units.end())
      return static_cast<int>(bucket);
  }
  fail(ExitCode::defect, "unit {} is not on this rank", unit);
}

Range intersection(Range a, Range b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max<int64_t>(0, std::min(a.end(), b.end()) - begin)};
}

std::vector<Range> flat_ranges(const Box& local, const Box& part) {
  std::vector<Range> ranges;
  if (part.numel() == 0) return ranges;
  const int dims = local.extent.dims();
  const auto add = [&](int64_t begin, int64_t count) {
    if (!ranges.empty() && ranges.back().end() == begin) {
      ranges.back().count += count;
    } else {
      ranges.push_back({begin, count});
    }
  };
  if (dims == 0) {
    add(0, 1);
    return ranges;
  }
  // Run by run of the part: a run goes over `inner` and all dimensions behind it, which the part spans.
  int inner = dims - 1;
  int64_t step = 1;  // elements of one index of `inner`
  while (inner > 0 && part.extent[inner] == local.extent[inner]) step *= local.extent[inner--];
  const auto start = [&](int dim) {
    return part.begin[static_cast<size_t>(dim)] - local.begin[static_cast<size_t>(dim)];
  };
  const int64_t run = part.extent[inner] * step;
  for (int64_t index = 0; index < part.numel() / run; ++index) {
    int64_t rest = index, offset = start(inner) * step, stride = step * local.extent[inner];
    for (int dim = inner - 1; dim >= 0; --dim) {
      offset += (start(dim) + rest % part.extent[dim]) * stride;
      rest /= part.extent[dim];
      stride *= local.extent[dim];
    }
    add(offset, run);
  }
  return ranges;
}

FlatLayout flat_layout(const Workload& workload, const std::vector<FlatChunk>& chunks, const Mesh& mesh,
                       int rank) {
  FlatLayout layout;
  layout.data = mesh.data;
  std::vector<int64_t> units;
  for (const FlatChunk& chunk : chunks) {
    layout.first_bucket.push_back(static_cast<int>(layout.buckets.size()));
    const int number = static_cast<int>(layout.first_bucket.size()) - 1;
    for (Range range : chunk.bucket_units)
      layout.buckets.push_back({.chunk = number, .units = range, .elements = {}});
    for (int64_t unit = chunk.units.begin; unit < chunk.units.end(); ++unit) {
      if (!units.empty()) check(units.back() < unit, "unit {} behind unit {}", unit, units.back());
      units.push_back(unit);
    }
  }

  // 1. Trainable pieces, ascending; every bucket begins and ends where shards of whole alignments fit.
  const int64_t bucket_alignment = flat_alignment * mesh.data;
  int64_t offset = 0;
  int open_bucket = -1;
  const auto close_bucket = [&] {
    if (open_bucket < 0) return;
    Range& elements = layout.buckets[static_cast<size_t>(open_bucket)].elements;
    elements.count = round_up(offset - elements.begin, bucket_alignment);
    offset = elements.end();
  };
  for (int64_t unit : units) {
    if (const int bucket = bucket_beginning_at(layout.buckets, unit); bucket >= 0) {
      close_bucket();
      open_bucket = bucket;
      layout.buckets[static_cast<size_t>(bucket)].elements.begin = offset;
    }
    check(open_bucket >= 0 && unit < layout.buckets[static_cast<size_t>(open_bucket)].units.end(),
          "unit {} is in no bucket", unit);
    const int64_t begin = round_up(offset, flat_alignment);
    offset = place_unit(workload, static_cast<int>(unit), Which::trainable, mesh, rank, begin, layout.pieces);
  }
  close_bucket();
  layout.trainable_elements = offset;

  // 2. Frozen pieces behind.
  for (int64_t unit : units) {
    offset = place_unit(workload, static_cast<int>(unit), Which::frozen, mesh, rank, offset, layout.pieces);
  }
  layout.elements = round_up(offset, flat_alignment);
  std::ranges::stable_sort(layout.pieces, {},
                           [](const FlatPiece& piece) { return std::pair(piece.unit, piece.index); });
  return layout;
}

Range shard_of(const FlatLayout& layout, int bucket, int data) {
  const Range elements = layout.buckets[static_cast<size_t>(bucket)].elements;
  check(data >= 0 && data < layout.data, "shard {} of {}", data, layout.data);
  const int64_t each = elements.count / layout.data;
  return {elements.begin + data * each, each};
}

Range compact_shard(const FlatLayout& layout, int bucket) {
  const Range elements = layout.buckets[static_cast<size_t>(bucket)].elements;
  return {elements.begin / layout.data, elements.count / layout.data};
}

int64_t shard_elements(const FlatLayout& layout) {
  return layout.trainable_elements / layout.data;
}

std::vector<int> exchange_order(const FlatLayout& layout) {
  std::vector<int> order(layout.buckets.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::ranges::sort(order, {}, [&](int i) { return layout.buckets[static_cast<size_t>(i)].units.begin; });
  return order;
}

std::vector<Range> counted_in(const FlatLayout& layout, Range elements) {
  std::vector<Range> counted;
  for (const FlatPiece& piece : layout.pieces) {
    if (intersection(piece.elements, elements).count == 0) continue;
    for (Range range : piece.counted) {
      const Range common = intersection(range, elements);
      if (common.count == 0) continue;
      if (!counted.empty() && counted.back().end() == common.begin) {
        counted.back().count += common.count;
      } else {
        counted.push_back(common);
      }
    }
  }
  return counted;
}

}  // namespace ptrain
