#include "parallel/plan/mesh.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

TEST(Mesh, RankAndCoordinateAreInverseAndTensorRunsFastest) {
  Cases cases(1);
  for (int i = 0; i < 2000; ++i) {
    const Mesh mesh{.pipeline = static_cast<int>(cases.between(1, 9)),
                    .data = static_cast<int>(cases.between(1, 9)),
                    .tensor = static_cast<int>(cases.between(1, 9))};
    const int rank = static_cast<int>(cases.between(0, mesh.world() - 1));
    const Coordinate at = mesh.coordinate_of(rank);
    EXPECT_EQ(mesh.rank_of(at), rank);
    if (at.tensor + 1 < mesh.tensor) {
      EXPECT_EQ(mesh.coordinate_of(rank + 1), (Coordinate{at.pipeline, at.data, at.tensor + 1}));
    }
  }
  const Mesh mesh{.pipeline = 2, .data = 2, .tensor = 2};
  EXPECT_EQ(mesh.coordinate_of(5), (Coordinate{.pipeline = 1, .data = 0, .tensor = 1}));
  EXPECT_EQ(to_string(mesh), "tensor 2 x pipeline 2 x data 2");
}

TEST(Mesh, GroupsOfEveryAxisPartitionTheWorld) {
  for (const Mesh& mesh : {Mesh{3, 2, 5}, Mesh{1, 1, 1}, Mesh{8, 16, 8}, Mesh{1, 7, 1}}) {
    for (Axis axis : {Axis::tensor, Axis::data, Axis::pipeline}) {
      std::set<std::vector<int>> groups;
      for (int rank = 0; rank < mesh.world(); ++rank) {
        const std::vector<int> group = mesh.group(rank, axis);
        EXPECT_EQ(group[static_cast<size_t>(index_along(mesh.coordinate_of(rank), axis))], rank);
        groups.insert(group);
      }
      std::set<int> members;
      for (const auto& group : groups) {
        EXPECT_EQ(static_cast<int>(group.size()), mesh.size(axis));
        members.insert(group.begin(), group.end());
      }
      EXPECT_EQ(static_cast<int>(members.size()), mesh.world());
      EXPECT_EQ(static_cast<int>(groups.size()) * mesh.size(axis), mesh.world());
    }
  }
}

TEST(Mesh, ARankOutsideTheWorldIsRefused) {
  const Mesh mesh{.pipeline = 2, .data = 1, .tensor = 3};
  EXPECT_THROW(mesh.coordinate_of(6), Error);
  EXPECT_THROW(mesh.coordinate_of(-1), Error);
}

}  // namespace
}  // namespace ptrain
