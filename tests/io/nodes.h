// Ranks on several hosts with a disk each, as threads: every host has a directory of its own. For tests of
// checkpoints in parts.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/part_writers.h"
#include "tests/io/checkpoint_state.h"

namespace ptrain {

/// A mesh whose ranks are on hosts; hosts see directories of these names below `base`.
struct Nodes {
  std::filesystem::path base;
  Mesh mesh;
  std::vector<std::string> hosts;  // of each rank

  std::filesystem::path root(const std::string& host) const { return base / host / "checkpoints"; }
  std::filesystem::path step(const std::string& host, int64_t number) const {
    return root(host) / checkpoint_name(number);
  }
  /// Runs on every rank with its host's storage and directory.
  void run(const std::function<void(const Storage&, const std::filesystem::path&)>& body) const {
    run_ranks(mesh.world(), [&](Communicator& world) {
      const Storage storage(world, StorageKind::per_node, disk_of_each_host(hosts, world.size()));
      body(storage, root(hosts[static_cast<size_t>(world.rank())]));
    });
  }
};

/// What a node's save asks for: every tensor with the part that writes it.
inline SaveRequest request_of(const Nodes& nodes, const Storage& storage, const std::filesystem::path& root,
                              int64_t step, DType dtype) {
  SaveRequest request = request_for(root, step, dtype);
  request.tensors.clear();
  std::vector<int> positions(static_cast<size_t>(nodes.mesh.pipeline));
  for (int position = 0; position < nodes.mesh.pipeline; ++position)
    positions[static_cast<size_t>(position)] = position;
  for (const Piece& piece : pieces())
    request.tensors.push_back({piece.name, piece.shape, dtype, stage_of(piece, nodes.mesh)});
  std::stable_sort(request.tensors.begin(), request.tensors.end(),
                   [](const HfTensor& a, const HfTensor& b) { return a.group < b.group; });
  deal_to_disks(request.tensors, positions, nodes.mesh, storage.disks());
  request.save = broadcast_text(storage.world(), new_save_name(), 0);
  return request;
}

inline void save_on(const Nodes& nodes, int64_t step, DType dtype = DType::f32) {
  nodes.run([&](const Storage& storage, const std::filesystem::path& root) {
    SaveRequest request = request_of(nodes, storage, root, step, dtype);
    std::map<std::string, int> part_of;
    for (const HfTensor& tensor : request.tensors) part_of[tensor.name] = tensor.part;
    const State state = state_to_write(nodes.mesh, storage.world().rank(), step);
    const MovedSlices moved(storage, state.slices, part_of);
    const Disks& disks = storage.disks();
    CheckpointSaver saver(storage.world(), {.group = storage.group(),
                                            .index = storage.disk(),
                                            .of = disks.count(),
                                            .host = disks.names[static_cast<size_t>(storage.disk())]});
    saver.save(std::move(request), moved.slices());
    EXPECT_FALSE(saver.take_outcome()->error.has_value());
  });
}

/// Resumes and looks at every number. Returns the step, 0 where there is no checkpoint, or minus the exit
/// code with which all ranks left.
inline int64_t resume_on(const Nodes& nodes, std::string* reason = nullptr) {
  int64_t step = 0;
  nodes.run([&](const Storage& storage, const std::filesystem::path& root) {
    State state = state_to_load(nodes.mesh, storage.world().rank());
    int64_t found_step = 0;
    std::string text;
    try {
      const auto found = resume_newest(storage, root, state.slices);
      if (found) {
        found_step = found->step;
        EXPECT_EQ(found->manifest.run["position"], found_step * 64);
        expect_loaded(state, found_step);
      }
    } catch (const AgreedError& error) {
      found_step = -static_cast<int64_t>(error.code());
      text = error.what();
    }
    if (storage.world().rank() != 0) return;
    step = found_step;
    if (reason != nullptr) *reason = text;
  });
  return step;
}

}  // namespace ptrain
