// Where the elements of a flat layout lie in memory: in one buffer, or range by range in several, which may
// take turns in one place. Views; owns nothing.
#pragma once

#include <vector>

#include "kernels/base/tensor.h"
#include "parallel/plan/flat.h"

namespace ptrain {

/// Elements [range) of a flat tensor.
Tensor slice(Tensor flat, Range range);

class FlatMemory {
 public:
  FlatMemory() = default;
  /// All elements, in the order of the layout.
  explicit FlatMemory(Tensor whole) : pieces_{{{0, whole.numel()}, whole}} {}

  /// Elements [range) of the layout lie in `memory`: (range.count).
  void add(Range range, Tensor memory);
  /// A view of elements that lie in one piece. Errors (defect): they do not.
  Tensor at(Range range) const;
  bool is_empty() const { return pieces_.empty(); }
  Device device() const { return pieces_.front().memory.device; }

 private:
  struct Piece {
    Range range;
    Tensor memory;
  };
  const Piece* find(Range range) const;

  std::vector<Piece> pieces_;  // ascending
};

/// The memory of `buffer`, which holds everything, or only the shards of one data coordinate one behind the
/// other (compact_shard).
enum class Held : uint8_t { whole, shards };
FlatMemory flat_memory(Tensor buffer, const FlatLayout& layout, int data_coordinate, Held held);

}  // namespace ptrain
