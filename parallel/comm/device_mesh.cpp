#include "parallel/comm/device_mesh.h"

#include <string>
#include <utility>

#include "parallel/comm/device_comm.h"
#include "parallel/comm/staged_comm.h"

namespace ptrain {
namespace {

/// One rank makes the address, all learn it over the host's wires.
std::unique_ptr<NcclComm> connect(Communicator& world, Nccl& nccl, const NcclConfig& config) {
  if (world.size() == 1) return nullptr;
  NcclId id;
  if (world.rank() == 0) id = nccl.unique_id();
  world.broadcast(Tensor(id.bytes.data(), {std::ssize(id.bytes)}, DType::u8), 0);
  return nccl.connect(id, world.rank(), world.size(), config);
}

std::unique_ptr<DeviceComm> split_along(DeviceComm& world, const Mesh& mesh, Axis axis) {
  const std::vector<int> ranks = mesh.group(world.rank(), axis);
  std::unique_ptr<DeviceComm> group = world.split_group(
      ranks.front(), index_along(mesh.coordinate_of(world.rank()), axis),
      fmt::format("the {} group of ranks {} to {}", name_of(axis), ranks.front(), ranks.back()));
  group->set_name(name_of(axis));
  return group;
}

MeshComms staged(Communicator& world, const Mesh& mesh, Device device, const Stream& compute,
                 const DeviceCommOptions& options) {
  const auto staging = std::make_shared<Staging>(device, compute, options.staging_bytes);
  auto all = std::make_unique<StagedComm>(world, staging);
  MeshComms comms = make_mesh_comms(*all, mesh);
  comms.owned_world = std::move(all);
  return comms;
}

}  // namespace

MeshComms make_device_comms(Communicator& world, const Mesh& mesh, Device device, const Stream& compute,
                            const DeviceCommOptions& options) {
  check_world(world, mesh);
  if (options.nccl == nullptr) return staged(world, mesh, device, compute, options);
  const NcclConfig config{.traffic_class = options.network.traffic_class,
                          .has_zero_ctas = options.has_zero_ctas,
                          .deadline_s = options.deadline_s,
                          .hosts = options.hosts};
  NcclConfig of_lanes = config;
  of_lanes.has_zero_ctas = false;
  of_lanes.min_ctas = options.network.lane_min_ctas;
  of_lanes.max_ctas = options.network.lane_max_ctas;
  const auto queues = std::make_shared<DeviceQueues>(device, compute, options.events);
  auto all = std::make_unique<DeviceComm>(world, connect(world, *options.nccl, config), queues, config,
                                          fmt::format("all {} ranks", world.size()));
  auto tensor = split_along(*all, mesh, Axis::tensor);
  auto data = split_along(*all, mesh, Axis::data);
  auto pipeline = split_along(*all, mesh, Axis::pipeline);
  if (pipeline->size() > 1) pipeline->open_lanes(options.edges, of_lanes);
  for (DeviceComm* comm : {all.get(), tensor.get(), data.get(), pipeline.get()})
    comm->try_out(options.deadline_s);

  MeshComms comms;
  comms.world = all.get();
  comms.owned_world = std::move(all);
  comms.tensor = std::move(tensor);
  comms.data = std::move(data);
  comms.pipeline = std::move(pipeline);
  return comms;
}

Registered register_memory(MeshComms& comms, void* data, int64_t bytes) {
  Registered registered;
  for (Communicator* comm : {comms.data.get(), comms.tensor.get(), comms.pipeline.get()}) {
    auto* device = dynamic_cast<DeviceComm*>(comm);
    if (device == nullptr || device->size() == 1) continue;
    // Windows want the same size on every rank, which only a data group has.
    const bool is_window =
        comm == comms.data.get() && device->register_buffer(data, bytes, Registration::symmetric);
    const bool is_local = !is_window && device->register_buffer(data, bytes, Registration::local);
    ++(is_window ? registered.windows : is_local ? registered.local : registered.declined);
  }
  return registered;
}

}  // namespace ptrain
