// The grid of ranks: sizes of its axes and who stands where. Pure integers, no communication.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ptrain {

enum class Axis : uint8_t { tensor, data, pipeline };

struct Coordinate {
  int pipeline = 0;
  int data = 0;
  int tensor = 0;

  bool operator==(const Coordinate&) const = default;
};

/// rank = (pipeline * data_size + data) * tensor_size + tensor: tensor fastest, then data, then pipeline.
/// Example, tensor 2, data 2, pipeline 2: rank 5 stands at pipeline 1, data 0, tensor 1.
struct Mesh {
  int pipeline = 1;
  int data = 1;
  int tensor = 1;

  int world() const { return pipeline * data * tensor; }
  int size(Axis axis) const;
  Coordinate coordinate_of(int rank) const;
  int rank_of(Coordinate at) const;
  /// All ranks that differ from `rank` only along `axis`, ascending; holds `rank` itself.
  std::vector<int> group(int rank, Axis axis) const;

  bool operator==(const Mesh&) const = default;
};

int index_along(Coordinate at, Axis axis);
std::string to_string(const Mesh& mesh);  // "tensor 2 x pipeline 2 x data 2"

}  // namespace ptrain
