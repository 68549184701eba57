#include "parallel/plan/layout.h"

#include "kernels/base/error.h"

namespace ptrain {
namespace {

Range units_of(const Shape& shape, const Split& split, const Mesh& mesh, int rank, bool only_counted) {
  const int64_t size = shape[split.dim];
  check(size % split.unit == 0, "dimension {} of {} is no multiple of {}", split.dim, to_string(shape),
        split.unit);
  const int64_t units = size / split.unit;
  const int parts = mesh.size(split.axis);
  const Range consumers =
      part_of(units * split.group, index_along(mesh.coordinate_of(rank), split.axis), parts);
  const auto up = [&](int64_t consumer) { return (consumer + split.group - 1) / split.group; };
  // A unit is counted by the rank that serves its first consumer: exactly one.
  const int64_t begin = only_counted ? up(consumers.begin) : consumers.begin / split.group;
  const int64_t end = up(consumers.end());
  return {begin * split.unit, std::max<int64_t>(0, end - begin) * split.unit};
}

}  // namespace

Range part_of(int64_t total, int index, int parts) {
  check(parts > 0 && index >= 0 && index < parts, "part {} of {}", index, parts);
  const int64_t begin = total * index / parts;
  return {begin, total * (index + 1) / parts - begin};
}

int64_t strip_share(int64_t rows, int tensor, int strips) {
  const int64_t shares = int64_t{tensor} * strips;
  return (rows + shares - 1) / shares;
}

Box whole(const Shape& shape) {
  return {{}, shape};
}

std::optional<Box> overlap(const Box& a, const Box& b) {
  Box common = a;
  for (int dim = 0; dim < a.extent.dims(); ++dim) {
    const auto d = static_cast<size_t>(dim);
    const int64_t begin = std::max(a.begin[d], b.begin[d]);
    const int64_t end = std::min(a.begin[d] + a.extent[dim], b.begin[d] + b.extent[dim]);
    if (begin >= end) return std::nullopt;
    common.begin[d] = begin;
    common.extent.set(dim, end - begin);
  }
  return common;
}

std::string to_string(const Box& box) {
  std::string text = "[";
  for (int dim = 0; dim < box.extent.dims(); ++dim) {
    const int64_t begin = box.begin[static_cast<size_t>(dim)];
    text += fmt::format("{}{}:{}", dim ? ", " : "", begin, begin + box.extent[dim]);
  }
  return text + "]";
}

Box local_box(const Shape& shape, const Layout& layout, const Mesh& mesh, int rank) {
  Box box = whole(shape);
  for (const Split& split : layout.splits) {
    const Range range = units_of(shape, split, mesh, rank, false);
    box.begin[static_cast<size_t>(split.dim)] = range.begin;
    box.extent.set(split.dim, range.count);
  }
  return box;
}

std::optional<Box> counted_box(const Shape& shape, const Layout& layout, const Mesh& mesh, int rank) {
  Box box = whole(shape);
  bool is_cut_by_tensor = false;
  for (const Split& split : layout.splits) {
    const Range range = units_of(shape, split, mesh, rank, true);
    if (range.count == 0) return std::nullopt;
    is_cut_by_tensor |= split.axis == Axis::tensor;
    box.begin[static_cast<size_t>(split.dim)] = range.begin;
    box.extent.set(split.dim, range.count);
  }
  if (!is_cut_by_tensor && mesh.coordinate_of(rank).tensor != 0) return std::nullopt;
  return box;
}

bool has_tensor_replicas(const Shape& shape, const Layout& layout, const Mesh& mesh) {
  int64_t held = 0;
  for (int tensor = 0; tensor < mesh.tensor; ++tensor) {
    held +=
        local_box(shape, layout, mesh, mesh.rank_of({.pipeline = 0, .data = 0, .tensor = tensor})).numel();
  }
  return held > shape.numel();
}

bool has_addends(const Piece& piece, const Mesh& mesh) {
  if (mesh.tensor == 1 || !piece.is_trainable) return false;
  return piece.layout.splits.empty() ? piece.layout.has_partial_gradients
                                     : has_tensor_replicas(piece.shape, piece.layout, mesh);
}

}  // namespace ptrain
