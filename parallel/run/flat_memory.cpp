#include "parallel/run/flat_memory.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {

Tensor slice(Tensor flat, Range range) {
  return Tensor(static_cast<char*>(flat.data) + range.begin * size_bytes(flat.dtype), {range.count},
                flat.dtype, flat.device);
}

void FlatMemory::add(Range range, Tensor memory) {
  check(memory.numel() == range.count, "{} elements in memory of {}", range.count, memory.numel());
  const auto place = std::ranges::upper_bound(pieces_, range.begin, {},
                                              [](const Piece& piece) { return piece.range.begin; });
  pieces_.insert(place, {range, memory});
}

const FlatMemory::Piece* FlatMemory::find(Range range) const {
  const auto behind = std::ranges::upper_bound(pieces_, range.begin, {},
                                               [](const Piece& piece) { return piece.range.begin; });
  if (behind == pieces_.begin()) return nullptr;
  const Piece& piece = *(behind - 1);
  return range.end() <= piece.range.end() ? &piece : nullptr;
}

Tensor FlatMemory::at(Range range) const {
  const Piece* piece = find(range);
  check(piece != nullptr, "elements {} to {} do not lie here in one piece", range.begin, range.end());
  return slice(piece->memory, {range.begin - piece->range.begin, range.count});
}

FlatMemory flat_memory(Tensor buffer, const FlatLayout& layout, int data_coordinate, Held held) {
  if (held == Held::whole) return FlatMemory(buffer);
  FlatMemory memory;
  for (int bucket = 0; bucket < static_cast<int>(layout.buckets.size()); ++bucket)
    memory.add(shard_of(layout, bucket, data_coordinate), slice(buffer, compact_shard(layout, bucket)));
  return memory;
}

}  // namespace ptrain
