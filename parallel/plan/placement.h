// Which GPU, cores and network device each rank takes, from what every rank sees of its host. Pure.
// Not for reading /sys (parallel/comm/numa) nor for binding.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/plan/mesh.h"

namespace ptrain {

/// Cores by their numbers, ascending.
using CpuList = std::vector<int>;

/// "0-3,8,10-11" as in /sys/devices/system/node/node0/cpulist. Errors (defect): another form.
CpuList parse_cpu_list(std::string_view text);
std::string to_string(const CpuList& cpus);  // "0-3,8,10-11"

struct GpuSeat {
  std::string name;  // "NVIDIA H200"
  int64_t total_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  std::string pci_bus_id;    // "0000:17:00.0"
  std::string pci_path;      // bridges down to it, "pci0000:15/0000:15:01.0/0000:17:00.0"; empty = not known
  int numa_node = -1;        // -1 = not known, or the host has one
};

struct NicSeat {
  std::string name;  // "mlx5_0"
  std::string pci_path;
  int numa_node = -1;
};

/// What one rank sees of its host. Devices are counted as the rank's own CUDA counts them.
struct RankView {
  std::string host;
  std::vector<GpuSeat> gpus;
  std::vector<NicSeat> nics;
  std::map<int, CpuList> cpus_of_node;
};

/// A view as a text that other ranks can read, and back. Errors (defect): a text of another form.
std::string to_text(const RankView& view);
RankView rank_view_from_text(std::string_view text);

enum class ShareDevices : uint8_t { refused, allowed };  // parallel.share_devices

struct RankSeat {
  std::string host;
  int local_rank = 0;  // among the ranks of its host
  int device = 0;      // as this rank's CUDA counts
  GpuSeat gpu;
  int numa_node = -1;  // where its threads and pinned memory should live
  CpuList cpus;        // of that node; empty = not known: leave the rank where it is
  std::string nic;     // nearest one; empty where there is none
};

/// One seat a rank, `views` in rank order. A rank takes the device of its place among the ranks of its host
/// that see the same devices: its local rank, or 0 where the launcher shows each rank one GPU of its own.
/// With sharing allowed the devices are dealt out in turn.
/// Errors: ExitCode::resources for a rank that sees no GPU; ExitCode::usage for more ranks than GPUs.
std::vector<RankSeat> seats_of_ranks(std::span<const RankView> views, ShareDevices share);

/// Whether two ranks compute on one GPU.
bool has_shared_device(std::span<const RankSeat> seats);

/// Refuses a mesh whose tensor groups span hosts. `hosts`: of each rank. `key`: how to name parallel.tensor,
/// "run.yaml:3: parallel.tensor". Errors: ExitCode::usage with the group, its hosts and what would fit.
void check_tensor_groups(const Mesh& mesh, std::span<const std::string> hosts, std::string_view key);

}  // namespace ptrain
