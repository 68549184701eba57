// Parts of tensors and how their elements meet: which runs two parts share, and copying them. Pure arithmetic
// beside the copy; the boxes of a mesh are parallel/plan/layout's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/plan/layout.h"

namespace ptrain {

/// Elements [range.begin, range.end()) of a box, counted in the box's own row-major order. A rank's part of a
/// weight is a whole box; a ZeRO shard is a range of one.
struct Slice {
  Box box;      // of the global tensor
  Range range;  // elements of the box

  int64_t numel() const { return range.count; }
  bool operator==(const Slice&) const = default;
};

Slice whole_of(const Box& box);
Slice whole_of(const Shape& shape);
/// "[0:4, 8:16]", with " elements 3:9" behind it where it is not the whole box.
std::string to_string(const Slice& slice);

/// Elements that lie side by side in both of two slices. Positions count from the first element of each
/// slice.
struct CommonRun {
  int64_t a = 0;
  int64_t b = 0;
  int64_t count = 0;

  bool operator==(const CommonRun&) const = default;
};

/// Walks over all elements that two slices of one tensor share, in row-major order, in runs as long as can
/// be.
///
///   for (CommonRuns runs(a, b); std::optional<CommonRun> run = runs.next();) …
///
/// Example: of a (4, 6) tensor, a = the whole, b = columns 2 to 5: four runs of 3, at 2, 8, 14, 20 of a.
class CommonRuns {
 public:
  CommonRuns(const Slice& a, const Slice& b);
  std::optional<CommonRun> next();

 private:
  Range a_range_;
  Range b_range_;
  int outer_dims_ = 0;     // dimensions walked over one by one
  int64_t run_count_ = 0;  // elements of a full run; 0 = nothing is shared
  std::array<int64_t, Shape::max_dims> extent_{};
  std::array<int64_t, Shape::max_dims> index_{};
  std::array<int64_t, Shape::max_dims> a_stride_{};
  std::array<int64_t, Shape::max_dims> b_stride_{};
  int64_t a_first_ = 0;  // position in box a of the common box's first element
  int64_t b_first_ = 0;
};

/// Whether two slices share an element.
bool touch(const Slice& a, const Slice& b);
/// How many elements they share.
int64_t common_elements(const Slice& a, const Slice& b);

/// destination = source where the two slices share elements, converted where the dtypes differ (see
/// convert_elements). source: from.numel() elements; destination: to.numel() elements.
void copy_common(const Slice& from, const void* source, DType source_dtype, const Slice& to,
                 void* destination, DType destination_dtype);

/// Errors (ExitCode::defect, naming `name`) unless the slice lies inside the tensor.
void check_inside(const Slice& slice, const Shape& shape, std::string_view name);

/// Empty where no two slices of one tensor share an element; else which do, for a message.
std::string overlap_fault(const std::vector<Slice>& slices);
/// Empty where the slices cover each element of the tensor exactly once; else what is wrong, for a message.
std::string tiling_fault(const Shape& shape, const std::vector<Slice>& slices);

}  // namespace ptrain
