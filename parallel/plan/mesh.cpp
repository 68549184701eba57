#include "parallel/plan/mesh.h"

#include "kernels/base/error.h"

namespace ptrain {

int Mesh::size(Axis axis) const {
  return axis == Axis::tensor ? tensor : axis == Axis::data ? data : pipeline;
}

Coordinate Mesh::coordinate_of(int rank) const {
  check(rank >= 0 && rank < world(), "rank {} of a world of {}", rank, world());
  return {.pipeline = rank / (tensor * data), .data = rank / tensor % data, .tensor = rank % tensor};
}

int Mesh::rank_of(Coordinate at) const {
  return (at.pipeline * data + at.data) * tensor + at.tensor;
}

std::vector<int> Mesh::group(int rank, Axis axis) const {
  Coordinate at = coordinate_of(rank);
  int& moving = axis == Axis::tensor ? at.tensor : axis == Axis::data ? at.data : at.pipeline;
  std::vector<int> ranks;
  for (moving = 0; moving < size(axis); ++moving) ranks.push_back(rank_of(at));
  return ranks;
}

int index_along(Coordinate at, Axis axis) {
  return axis == Axis::tensor ? at.tensor : axis == Axis::data ? at.data : at.pipeline;
}

std::string to_string(const Mesh& mesh) {
  return fmt::format("tensor {} x pipeline {} x data {}", mesh.tensor, mesh.pipeline, mesh.data);
}

}  // namespace ptrain
