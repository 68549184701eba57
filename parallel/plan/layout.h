// How a weight is cut over the mesh: which box of the global tensor a rank holds, which part of it the rank
// counts once, and whether replicas along the tensor axis carry partial gradients. Pure arithmetic on
// integers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/dtype.h"
#include "kernels/base/shape.h"
#include "parallel/plan/mesh.h"

namespace ptrain {

struct Range {
  int64_t begin = 0;
  int64_t count = 0;

  int64_t end() const { return begin + count; }
  bool operator==(const Range&) const = default;
};

/// Part `index` of `parts` of `total` things: [total * index / parts, total * (index + 1) / parts).
/// Example: 7 in 3 parts is 2, 2, 3.
Range part_of(int64_t total, int index, int parts);

/// Rows of a strip that one tensor rank owns with sequence parallelism: `rows` are padded so that every strip
/// has equal shares. Example: 19 rows, tensor 3, 2 strips: 4 (24 rows, 12 a strip).
int64_t strip_share(int64_t rows, int tensor, int strips);

/// A box of a global tensor: [begin, begin + extent) in each dimension.
struct Box {
  std::array<int64_t, Shape::max_dims> begin{};
  Shape extent;

  int64_t numel() const { return extent.numel(); }
  bool operator==(const Box&) const = default;
};

Box whole(const Shape& shape);
/// The common part of two boxes of one tensor; empty where they do not touch.
std::optional<Box> overlap(const Box& a, const Box& b);
std::string to_string(const Box& box);  // "[0:4, 8:16]"

/// Dimension `dim` is cut along mesh axis `axis` in whole units of `unit` elements (a head's size, or 1).
/// With group > 1 each unit serves `group` consecutive consumers (query heads of a key-value head). The
/// consumers are cut evenly and a rank holds every unit that one of its consumers needs, so a unit can lie on
/// several ranks. Example: 2 KV heads, group 3, tensor 3: query heads 0-1 | 2-3 | 4-5 need KV heads 0 | 0-1
/// | 1.
struct Split {
  int dim = 0;
  Axis axis = Axis::tensor;
  int64_t unit = 1;
  int64_t group = 1;
};

struct Layout {
  std::vector<Split> splits;  // none = replicated
  bool has_partial_gradients =
      false;  // replicas along the tensor axis hold addends of the gradient, to be summed
};

/// The box that `rank` holds.
Box local_box(const Shape& shape, const Layout& layout, const Mesh& mesh, int rank);

/// The part of local_box that this rank counts in sums over all parameters (norms): over a tensor group the
/// counted boxes tile the tensor. Replicas along data are the same parameter; they are not told apart here.
std::optional<Box> counted_box(const Shape& shape, const Layout& layout, const Mesh& mesh, int rank);

/// True where some element lies on two ranks of a tensor group (replicated, or a shared KV head).
bool has_tensor_replicas(const Shape& shape, const Layout& layout, const Mesh& mesh);

/// A global tensor as the plan and the checkpoint know it.
struct Piece {
  std::string name;  // the HF name
  Shape shape;       // global
  DType dtype = DType::f32;
  Layout layout;
  bool is_trainable = true;
};

/// Ranks of a tensor group hold addends of this weight's gradient, to be summed.
bool has_addends(const Piece& piece, const Mesh& mesh);

}  // namespace ptrain
