#include "parallel/comm/mesh_comms.h"

namespace ptrain {
namespace {

// Ranks that differ only along `axis` name the same color: the rank of the first of them.
std::unique_ptr<Communicator> split_along(Communicator& world, const Mesh& mesh, Axis axis) {
  const int first = mesh.group(world.rank(), axis).front();
  std::unique_ptr<Communicator> group =
      world.split(first, index_along(mesh.coordinate_of(world.rank()), axis));
  group->set_name(name_of(axis));
  return group;
}

}  // namespace

Communicator& MeshComms::along(Axis axis) const {
  switch (axis) {
    case Axis::tensor:
      return *tensor;
    case Axis::data:
      return *data;
    case Axis::pipeline:
      return *pipeline;
  }
  fail(ExitCode::defect, "the mesh has no axis {}", static_cast<int>(axis));
}

std::string_view name_of(Axis axis) {
  return axis == Axis::tensor ? "tensor" : axis == Axis::data ? "data" : "pipeline";
}

void check_world(const Communicator& world, const Mesh& mesh) {
  check(mesh.world() == world.size(), ExitCode::usage,
        "{} = {} ranks, but the launcher started {}: start {} ranks or change parallel", to_string(mesh),
        mesh.world(), world.size(), mesh.world());
}

MeshComms make_mesh_comms(Communicator& world, const Mesh& mesh) {
  check_world(world, mesh);
  MeshComms comms;
  comms.world = &world;
  comms.tensor = split_along(world, mesh, Axis::tensor);
  comms.data = split_along(world, mesh, Axis::data);
  comms.pipeline = split_along(world, mesh, Axis::pipeline);
  return comms;
}

}  // namespace ptrain
