#include "src/io/boxes.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "kernels/base/rng.h"

namespace ptrain {
namespace {

/// Random boxes and ranges, drawn by position.
class Draw {
 public:
  explicit Draw(uint64_t seed) : rng_(seed, 0) {}
  int64_t below(int64_t bound) {
    return static_cast<int64_t>(rng_.below(next_++, static_cast<uint64_t>(bound)));
  }
  Shape shape() {
    Shape shape;
    for (int64_t dim = below(5); dim > 0; --dim) shape.push_back(1 + below(7));
    return shape;
  }
  Slice slice(const Shape& shape) {
    Box box = whole(shape);
    for (int dim = 0; dim < shape.dims(); ++dim) {
      if (below(3) == 0) continue;
      const int64_t begin = below(1 + shape[dim] / 2);
      box.begin[static_cast<size_t>(dim)] = begin;
      box.extent.set(dim, 1 + below(shape[dim] - begin));
    }
    if (below(2) == 0) return whole_of(box);
    const int64_t begin = below(box.numel() + 1);
    return {box, {begin, below(box.numel() - begin + 1)}};
  }

 private:
  Rng rng_;
  uint64_t next_ = 0;
};

/// Where each element of a slice lies in the global tensor, element by element: the slow truth.
std::vector<int64_t> positions(const Slice& slice, const Shape& shape) {
  std::vector<int64_t> result;
  for (int64_t i = slice.range.begin; i < slice.range.end(); ++i) {
    int64_t rest = i, position = 0, stride = 1;
    for (int dim = shape.dims() - 1; dim >= 0; --dim) {
      position += (slice.box.begin[static_cast<size_t>(dim)] + rest % slice.box.extent[dim]) * stride;
      rest /= slice.box.extent[dim];
      stride *= shape[dim];
    }
    result.push_back(position);
  }
  return result;
}

TEST(Boxes, RunsOfTwoSlicesAreExactlyTheirCommonElements) {
  Draw draw(1);
  int64_t shared = 0;
  for (int round = 0; round < 3000; ++round) {
    const Shape shape = draw.shape();
    const Slice a = draw.slice(shape), b = draw.slice(shape);
    const std::vector<int64_t> in_a = positions(a, shape), in_b = positions(b, shape);
    const std::set<int64_t> set_b(in_b.begin(), in_b.end());
    std::vector<int64_t> expected;
    for (const int64_t position : in_a) {
      if (set_b.count(position)) expected.push_back(position);
    }
    std::vector<int64_t> found;
    CommonRuns runs(a, b);
    while (const std::optional<CommonRun> run = runs.next()) {
      ASSERT_GT(run->count, 0);
      for (int64_t i = 0; i < run->count; ++i) {
        const int64_t position = in_a.at(static_cast<size_t>(run->a + i));
        ASSERT_EQ(position, in_b.at(static_cast<size_t>(run->b + i)));
        found.push_back(position);
      }
    }
    ASSERT_EQ(found, expected) << to_string(a) << " and " << to_string(b) << " of " << to_string(shape);
    ASSERT_EQ(touch(a, b), !expected.empty());
    ASSERT_EQ(common_elements(a, b), static_cast<int64_t>(expected.size()));
    shared += static_cast<int64_t>(expected.size());
  }
  EXPECT_GT(shared, 5000);
}

TEST(Boxes, FullInnerDimensionsMakeOneRun) {
  const Shape shape{4, 3, 5};
  const Slice middle = whole_of(Box{{1, 0, 0}, Shape{2, 3, 5}});
  CommonRuns runs(middle, whole_of(shape));
  EXPECT_EQ(runs.next(), (CommonRun{0, 15, 30}));
  EXPECT_EQ(runs.next(), std::nullopt);
  CommonRuns columns(whole_of(shape), whole_of(Box{{0, 1, 0}, Shape{4, 2, 5}}));
  EXPECT_EQ(columns.next(), (CommonRun{5, 0, 10}));
  EXPECT_EQ(columns.next(), (CommonRun{20, 10, 10}));
}

TEST(Boxes, CopyingWhatSlicesShareMovesAndConvertsEachElement) {
  Draw draw(2);
  for (int round = 0; round < 300; ++round) {
    const Shape shape = draw.shape();
    const Slice a = draw.slice(shape), b = draw.slice(shape);
    const std::vector<int64_t> in_a = positions(a, shape), in_b = positions(b, shape);
    const std::vector<float> source(in_a.begin(), in_a.end());
    std::vector<double> destination(in_b.size(), -1);
    copy_common(a, source.data(), DType::f32, b, destination.data(), DType::f64);
    const std::set<int64_t> set_a(in_a.begin(), in_a.end());
    for (size_t i = 0; i < in_b.size(); ++i) {
      ASSERT_EQ(destination[i], set_a.count(in_b[i]) ? static_cast<double>(in_b[i]) : -1.0);
    }
  }
}

TEST(Boxes, TilingFindsHolesAndOverlaps) {
  const Shape shape{6, 4};
  const Slice top = whole_of(Box{{0, 0}, Shape{3, 4}});
  const Slice left = whole_of(Box{{3, 0}, Shape{3, 2}}), right = whole_of(Box{{3, 2}, Shape{3, 2}});
  EXPECT_EQ(tiling_fault(shape, {top, left, right}), "");
  EXPECT_EQ(tiling_fault(shape, {top, {left.box, {0, 2}}, right, {left.box, {2, 4}}}), "");
  EXPECT_EQ(tiling_fault(shape, {top, left}), "18 of 24 elements are covered");
  EXPECT_EQ(tiling_fault(shape, {top, whole_of(Box{{2, 0}, Shape{4, 2}}), right}),
            "[0:3, 0:4] and [2:6, 0:2] overlap");
}

TEST(Boxes, SlicesOutsideOfTheTensorAreDefects) {
  const Shape shape{6, 4};
  for (const Slice& bad : {whole_of(Box{{4, 0}, Shape{3, 4}}), whole_of(Box{{-1, 0}, Shape{1, 4}}),
                           Slice{whole(shape), {20, 5}}, whole_of(Shape{6})}) {
    EXPECT_THROW(check_inside(bad, shape, "w"), Error) << to_string(bad);
  }
  EXPECT_NO_THROW(check_inside({whole(shape), {20, 4}}, shape, "w"));
}

}  // namespace
}  // namespace ptrain
