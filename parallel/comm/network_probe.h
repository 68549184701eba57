// Collects from a Linux machine's files what parallel/plan/network decides upon, and what a rank sees of its
// host for parallel/plan/placement. Not for deciding, and not for asking libraries: their files are looked
// at.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/plan/network.h"
#include "parallel/plan/placement.h"

namespace ptrain {

/// Where to look, and what the caller knows better.
struct NetworkProbe {
  std::filesystem::path root = "/";  // of the files; tests pass a tree of their own
  std::function<const char*(const char*)> environment =
      {};                // a variable's value or nullptr; launch/ passes getenv
  int nccl_version = 0;  // as ncclGetVersion counts (22809); 0 = none, and none is looked for
  int hosts = 1;
  int streams = 1;
  bool shares_devices = false;
  std::string nccl_log = {};  // see NetworkReport
};
/// Never fails: what cannot be read is left at "not known".
NetworkReport probe_network(const NetworkProbe& probe);

/// What this rank sees of its host. `gpus`: name, memory, compute capability and bus id of the devices that
/// its CUDA shows, in that order; the rest of each is filled in here.
RankView view_of_rank(const std::filesystem::path& root, std::string host, std::vector<GpuSeat> gpus);

/// The views of all ranks, in rank order. A collective.
std::vector<RankView> gather_views(Communicator& world, const RankView& mine);

}  // namespace ptrain
