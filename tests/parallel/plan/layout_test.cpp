#include "parallel/plan/layout.h"

#include <gtest/gtest.h>

#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

/// How often each element of a matrix lies in the boxes of the tensor group.
template <class BoxOf>
std::vector<int> coverage(const Shape& shape, const Mesh& mesh, BoxOf box_of) {
  std::vector<int> times(static_cast<size_t>(shape.numel()), 0);
  for (int tensor = 0; tensor < mesh.tensor; ++tensor) {
    const std::optional<Box> box = box_of(mesh.rank_of({.tensor = tensor}));
    if (!box) continue;
    for (int64_t row = 0; row < box->extent[0]; ++row) {
      for (int64_t column = 0; column < box->extent[1]; ++column) {
        ++times[static_cast<size_t>((box->begin[0] + row) * shape[1] + box->begin[1] + column)];
      }
    }
  }
  return times;
}

TEST(Layout, PartsTileAndDifferByAtMostOne) {
  EXPECT_EQ(part_of(7, 0, 3), (Range{0, 2}));
  EXPECT_EQ(part_of(7, 1, 3), (Range{2, 2}));
  EXPECT_EQ(part_of(7, 2, 3), (Range{4, 3}));
  Cases cases(2);
  for (int i = 0; i < 3000; ++i) {
    const int64_t total = cases.between(0, 300);
    const int parts = static_cast<int>(cases.between(1, 20));
    int64_t end = 0;
    for (int part = 0; part < parts; ++part) {
      const Range range = part_of(total, part, parts);
      EXPECT_EQ(range.begin, end);
      EXPECT_GE(range.count, total / parts);
      EXPECT_LE(range.count, total / parts + 1);
      end = range.end();
    }
    EXPECT_EQ(end, total);
  }
}

TEST(Layout, LocalBoxesCoverAndCountedBoxesTileEveryTensor) {
  Cases cases(3);
  for (int i = 0; i < 3000; ++i) {
    const int64_t unit = cases.between(1, 4), units = cases.between(1, 6), group = cases.between(1, 4);
    const Mesh mesh{.pipeline = 1, .data = 1, .tensor = static_cast<int>(cases.between(1, 8))};
    const int dim = static_cast<int>(cases.between(0, 1));
    Shape shape{cases.between(1, 5), cases.between(1, 5)};
    Layout layout;
    if (cases.between(0, 4) > 0) {
      shape.set(dim, unit * units);
      layout.splits = {{.dim = dim, .unit = unit, .group = group}};
    }
    const auto held = coverage(
        shape, mesh, [&](int rank) -> std::optional<Box> { return local_box(shape, layout, mesh, rank); });
    const auto counted =
        coverage(shape, mesh, [&](int rank) { return counted_box(shape, layout, mesh, rank); });
    int most = 0;
    for (size_t element = 0; element < held.size(); ++element) {
      ASSERT_GE(held[element], 1) << "case " << i;
      ASSERT_EQ(counted[element], 1) << "case " << i;
      most = std::max(most, held[element]);
    }
    EXPECT_EQ(has_tensor_replicas(shape, layout, mesh), most > 1);
  }
}

TEST(Layout, CountedBoxesLieInsideLocalOnes) {
  Cases cases(4);
  for (int i = 0; i < 2000; ++i) {
    const int64_t group = cases.between(1, 4), K = cases.between(1, 4);
    const Mesh mesh{.pipeline = 2, .data = 2, .tensor = static_cast<int>(cases.between(1, 6))};
    const Shape shape{8 * K, 3};
    const Layout layout{.splits = {{.dim = 0, .unit = 8, .group = group}}};
    const int rank = static_cast<int>(cases.between(0, mesh.world() - 1));
    const Box local = local_box(shape, layout, mesh, rank);
    if (const auto counted = counted_box(shape, layout, mesh, rank)) {
      EXPECT_EQ(overlap(local, *counted), counted);
    }
  }
}

TEST(Layout, KeyValueHeadsLieWhereTheirQueryHeadsAre) {
  // 2 KV heads of 8 rows, 6 query heads over 3 ranks: 0-1 | 2-3 | 4-5 need KV heads 0 | 0-1 | 1.
  const Mesh mesh{.pipeline = 1, .data = 1, .tensor = 3};
  const Shape shape{16, 48};
  const Layout layout{.splits = {{.dim = 0, .unit = 8, .group = 3}}};
  EXPECT_EQ(to_string(local_box(shape, layout, mesh, 0)), "[0:8, 0:48]");
  EXPECT_EQ(to_string(local_box(shape, layout, mesh, 1)), "[0:16, 0:48]");
  EXPECT_EQ(to_string(local_box(shape, layout, mesh, 2)), "[8:16, 0:48]");
  // Each head is counted where its first query head is: head 0 by rank 0, head 1 (from query 3 on) by rank 1.
  EXPECT_EQ(to_string(*counted_box(shape, layout, mesh, 0)), "[0:8, 0:48]");
  EXPECT_EQ(to_string(*counted_box(shape, layout, mesh, 1)), "[8:16, 0:48]");
  EXPECT_FALSE(counted_box(shape, layout, mesh, 2));
  EXPECT_TRUE(has_tensor_replicas(shape, layout, mesh));
}

TEST(Layout, AVocabularyOf199IsCutUnevenlyAndWhole) {
  const Shape shape{199, 48};
  const Layout layout{.splits = {{.dim = 0}}};
  const std::vector<std::vector<int64_t>> rows = {{199}, {99, 100}, {66, 66, 67}, {49, 50, 50, 50}};
  for (int tensor = 1; tensor <= 4; ++tensor) {
    const Mesh mesh{.pipeline = 1, .data = 1, .tensor = tensor};
    int64_t end = 0;
    for (int rank = 0; rank < tensor; ++rank) {
      const Box box = local_box(shape, layout, mesh, rank);
      EXPECT_EQ(box.begin[0], end);
      EXPECT_EQ(box.extent[0], rows[static_cast<size_t>(tensor - 1)][static_cast<size_t>(rank)]);
      EXPECT_EQ(box.extent[1], 48);
      end += box.extent[0];
    }
    EXPECT_EQ(end, 199);
  }
}

TEST(Layout, AReplicatedWeightIsCountedByTheFirstTensorRankAlone) {
  const Mesh mesh{.pipeline = 2, .data = 3, .tensor = 2};
  for (int rank = 0; rank < mesh.world(); ++rank) {
    EXPECT_EQ(local_box({48}, {}, mesh, rank).numel(), 48);
    EXPECT_EQ(counted_box({48}, {}, mesh, rank).has_value(), rank % 2 == 0);
  }
}

TEST(Layout, AUnitThatDoesNotDivideItsDimensionIsADefect) {
  EXPECT_THROW(local_box({10, 2}, {.splits = {{.dim = 0, .unit = 4}}}, Mesh{}, 0), Error);
}

}  // namespace
}  // namespace ptrain
