// The communicators of one rank of a mesh: one along each axis, and the pair that shares tied embeddings.
#pragma once

#include <memory>

#include "parallel/comm/communicator.h"
#include "parallel/plan/mesh.h"

namespace ptrain {

/// In each of them the ranks are ordered by their index along the axis, so a peer along the pipeline is a
/// stage's number.
struct MeshComms {
  std::unique_ptr<Communicator> tensor;
  std::unique_ptr<Communicator> data;
  std::unique_ptr<Communicator> pipeline;
  std::unique_ptr<Communicator> ends;  // first (rank 0) and last stage (rank 1); null on the stages between
                                       // and for a pipeline of one

  Communicator& along(Axis axis) const;
};

/// Every rank of `world` must call; world.size() must be mesh.world().
MeshComms make_mesh_comms(Communicator& world, const Mesh& mesh);

}  // namespace ptrain
