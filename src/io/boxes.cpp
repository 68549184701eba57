#include "src/io/boxes.h"

#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "src/io/elements.h"

namespace ptrain {
namespace {

/// The rows of a slice's box that its range touches: a smaller box, or none where the range is empty.
std::optional<Box> touched_rows(const Slice& slice) {
  if (slice.range.count <= 0 || slice.box.numel() == 0) return std::nullopt;
  Box box = slice.box;
  if (box.extent.dims() == 0) return box;
  const int64_t row = box.numel() / box.extent[0];
  const int64_t first = slice.range.begin / row;
  const int64_t last = (slice.range.end() + row - 1) / row;
  box.begin[0] += first;
  box.extent.set(0, last - first);
  return box;
}

std::array<int64_t, Shape::max_dims> strides_of(const Shape& extent) {
  std::array<int64_t, Shape::max_dims> strides{};
  int64_t stride = 1;
  for (int dim = extent.dims() - 1; dim >= 0; --dim) {
    strides[static_cast<size_t>(dim)] = stride;
    stride *= extent[dim];
  }
  return strides;
}

}  // namespace

Slice whole_of(const Box& box) {
  return {box, {0, box.numel()}};
}

Slice whole_of(const Shape& shape) {
  return whole_of(whole(shape));
}

std::string to_string(const Slice& slice) {
  std::string text = to_string(slice.box);
  if (slice.range != Range{0, slice.box.numel()}) {
    text += fmt::format(" elements {}:{}", slice.range.begin, slice.range.end());
  }
  return text;
}

CommonRuns::CommonRuns(const Slice& a, const Slice& b) : a_range_(a.range), b_range_(b.range) {
  const std::optional<Box> rows_a = touched_rows(a);
  const std::optional<Box> rows_b = touched_rows(b);
  if (!rows_a || !rows_b) return;
  const std::optional<Box> common = overlap(*rows_a, *rows_b);
  if (!common) return;
  a_stride_ = strides_of(a.box.extent);
  b_stride_ = strides_of(b.box.extent);
  const int dims = common->extent.dims();
  for (int dim = 0; dim < dims; ++dim) {
    const auto d = static_cast<size_t>(dim);
    extent_[d] = common->extent[dim];
    a_first_ += (common->begin[d] - a.box.begin[d]) * a_stride_[d];
    b_first_ += (common->begin[d] - b.box.begin[d]) * b_stride_[d];
  }
  // The innermost dimensions that are full in both boxes make one run with the dimension outside them.
  run_count_ = 1;
  outer_dims_ = dims;
  bool is_full = true;
  while (outer_dims_ > 0 && is_full) {
    const int dim = --outer_dims_;
    run_count_ *= extent_[static_cast<size_t>(dim)];
    is_full = common->extent[dim] == a.box.extent[dim] && common->extent[dim] == b.box.extent[dim];
  }
}

std::optional<CommonRun> CommonRuns::next() {
  while (run_count_ > 0) {
    int64_t a = a_first_;
    int64_t b = b_first_;
    for (size_t dim = 0; dim < static_cast<size_t>(outer_dims_); ++dim) {
      a += index_[dim] * a_stride_[dim];
      b += index_[dim] * b_stride_[dim];
    }
    const int64_t begin = std::max({int64_t{0}, a_range_.begin - a, b_range_.begin - b});
    const int64_t end = std::min({run_count_, a_range_.end() - a, b_range_.end() - b});
    int dim = outer_dims_ - 1;
    for (; dim >= 0; --dim) {
      const auto d = static_cast<size_t>(dim);
      if (++index_[d] < extent_[d]) break;
      index_[d] = 0;
    }
    if (dim < 0) run_count_ = 0;  // that was the last one
    if (begin < end) return CommonRun{a + begin - a_range_.begin, b + begin - b_range_.begin, end - begin};
  }
  return std::nullopt;
}

bool touch(const Slice& a, const Slice& b) {
  return CommonRuns(a, b).next().has_value();
}

int64_t common_elements(const Slice& a, const Slice& b) {
  int64_t sum = 0;
  CommonRuns runs(a, b);
  while (const std::optional<CommonRun> run = runs.next()) sum += run->count;
  return sum;
}

void copy_common(const Slice& from, const void* source, DType source_dtype, const Slice& to,
                 void* destination, DType destination_dtype) {
  CommonRuns runs(from, to);
  while (const std::optional<CommonRun> run = runs.next()) {
    convert_elements(static_cast<const char*>(source) + run->a * size_bytes(source_dtype), source_dtype,
                     static_cast<char*>(destination) + run->b * size_bytes(destination_dtype),
                     destination_dtype, run->count);
  }
}

void check_inside(const Slice& slice, const Shape& shape, std::string_view name) {
  bool is_inside =
      slice.box.extent.dims() == shape.dims() && slice.range.begin >= 0 && slice.range.count >= 0;
  for (int dim = 0; is_inside && dim < shape.dims(); ++dim) {
    const int64_t begin = slice.box.begin[static_cast<size_t>(dim)];
    const int64_t extent = slice.box.extent[dim];
    is_inside = begin >= 0 && extent >= 0 && extent <= shape[dim] && begin <= shape[dim] - extent;
  }
  is_inside = is_inside && slice.range.begin <= slice.box.numel() &&
              slice.range.count <= slice.box.numel() - slice.range.begin;
  check(is_inside, "{}: {} does not lie inside {}", name, to_string(slice), to_string(shape));
}

std::string overlap_fault(const std::vector<Slice>& slices) {
  // Slices of one box are judged by their ranges alone, boxes by pairs: there are few boxes and many slices.
  const auto key = [](const Slice& slice) {
    std::array<int64_t, 2 * Shape::max_dims> words{};
    for (int dim = 0; dim < slice.box.extent.dims(); ++dim) {
      words[static_cast<size_t>(2 * dim)] = slice.box.begin[static_cast<size_t>(dim)];
      words[static_cast<size_t>(2 * dim + 1)] = slice.box.extent[dim];
    }
    return words;
  };
  std::map<std::array<int64_t, 2 * Shape::max_dims>, std::vector<const Slice*>> slices_of;
  for (const Slice& slice : slices) {
    if (slice.numel() > 0) slices_of[key(slice)].push_back(&slice);
  }
  const auto overlapping = [](const Slice& a, const Slice& b) {
    return fmt::format("{} and {} overlap", to_string(a), to_string(b));
  };
  for (auto it = slices_of.begin(); it != slices_of.end(); ++it) {
    std::vector<const Slice*>& group = it->second;
    std::sort(group.begin(), group.end(),
              [](const Slice* a, const Slice* b) { return a->range.begin < b->range.begin; });
    for (size_t i = 1; i < group.size(); ++i) {
      if (group[i - 1]->range.end() > group[i]->range.begin) return overlapping(*group[i - 1], *group[i]);
    }
    for (auto other = slices_of.begin(); other != it; ++other) {
      if (!overlap(other->second[0]->box, group[0]->box)) continue;
      for (const Slice* a : other->second) {
        for (const Slice* b : group) {
          if (touch(*a, *b)) return overlapping(*a, *b);
        }
      }
    }
  }
  return "";
}

std::string tiling_fault(const Shape& shape, const std::vector<Slice>& slices) {
  if (std::string fault = overlap_fault(slices); !fault.empty()) return fault;
  int64_t covered = 0;
  for (const Slice& slice : slices) covered += slice.numel();
  if (covered == shape.numel()) return "";
  return fmt::format("{} of {} elements are covered", covered, shape.numel());
}

}  // namespace ptrain
