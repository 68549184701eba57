// The communicators of one rank of a mesh: one along each axis.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/comm/communicator.h"
#include "parallel/plan/mesh.h"

namespace ptrain {

/// In each of them the ranks are ordered by their index along the axis, so a peer along the pipeline is a
/// stage's number.
struct MeshComms {
  Communicator* world = nullptr;              // all ranks, able to do what the others are
  std::unique_ptr<Communicator> owned_world;  // null where `world` is the caller's; goes last
  std::unique_ptr<Communicator> tensor;
  std::unique_ptr<Communicator> data;
  std::unique_ptr<Communicator> pipeline;

  Communicator& along(Axis axis) const;
};

/// Of CPU tensors. Every rank of `world` must call; world.size() must be mesh.world(). `world` outlives it.
MeshComms make_mesh_comms(Communicator& world, const Mesh& mesh);

/// "tensor", "data", "pipeline"
std::string_view name_of(Axis axis);

/// Errors: usage, where the mesh has another number of ranks than the world.
void check_world(const Communicator& world, const Mesh& mesh);

}  // namespace ptrain
