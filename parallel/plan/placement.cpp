#include "parallel/plan/placement.h"

#include <algorithm>
#include <set>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

std::string bus_ids(const RankView& view) {
  std::string ids;
  for (const GpuSeat& gpu : view.gpus) ids += gpu.pci_bus_id + " ";
  return ids;
}

/// Where two paths part: the number of bridges and devices that they have in common.
/// "a/b/c" and "a/b/d": 2.
int common_bridges(std::string_view a, std::string_view b) {
  int common = 0;
  while (!a.empty() && !b.empty()) {
    const size_t end_a = a.find('/'), end_b = b.find('/');
    if (a.substr(0, end_a) != b.substr(0, end_b)) break;
    ++common;
    a = end_a == std::string_view::npos ? std::string_view{} : a.substr(end_a + 1);
    b = end_b == std::string_view::npos ? std::string_view{} : b.substr(end_b + 1);
  }
  return common;
}

/// Larger is nearer: a shared switch, then a shared root, then a shared NUMA node.
std::pair<int, int> nearness(const GpuSeat& gpu, const NicSeat& nic) {
  const bool is_same_node = gpu.numa_node >= 0 && gpu.numa_node == nic.numa_node;
  return {common_bridges(gpu.pci_path, nic.pci_path), is_same_node ? 1 : 0};
}

/// The nearest NICs, all equally near, in the order of the host.
std::vector<std::string> nearest_nics(const GpuSeat& gpu, const std::vector<NicSeat>& nics) {
  std::pair<int, int> best{-1, -1};
  std::vector<std::string> names;
  for (const NicSeat& nic : nics) {
    const auto near = nearness(gpu, nic);
    if (near < best) continue;
    if (near > best) names.clear();
    best = near;
    names.push_back(nic.name);
  }
  return names;
}

std::string devices_text(const RankView& view) {
  std::string text;
  for (const GpuSeat& gpu : view.gpus) text += (text.empty() ? "" : ", ") + gpu.pci_bus_id;
  return text;
}

[[noreturn]] void refuse_sharing(const RankView& view, int64_t ranks) {
  const size_t gpus = view.gpus.size();
  fail(
      ExitCode::usage,
      "host {} has {} rank{} for {} GPU{} ({}); start at most {} there (mpirun --map-by ppr:{}:node), or let "
      "ranks share a GPU with parallel.share_devices: true",
      view.host, ranks, ranks == 1 ? "" : "s", gpus, gpus == 1 ? "" : "s", devices_text(view), gpus, gpus);
}

/// Two ranks of a host may see different lists with a GPU in common.
void check_devices_apart(std::span<const RankSeat> seats) {
  std::map<std::pair<std::string, std::string>, size_t> owner;
  for (size_t rank = 0; rank < seats.size(); ++rank) {
    const RankSeat& seat = seats[rank];
    const auto [it, is_first] = owner.emplace(std::pair(seat.host, seat.gpu.pci_bus_id), rank);
    check(
        is_first, ExitCode::usage,
        "ranks {} and {} on host {} would both use GPU {}; let the launcher show every rank the same GPUs or "
        "one of its own, or let ranks share a GPU with parallel.share_devices: true",
        it->second, rank, seat.host, seat.gpu.pci_bus_id);
  }
}

}  // namespace

std::vector<RankSeat> seats_of_ranks(std::span<const RankView> views, ShareDevices share) {
  std::map<std::string, int> ranks_on;                                       // of each host, so far
  std::map<std::pair<std::string, std::string>, std::vector<size_t>> alike;  // ranks that see the same
  for (size_t rank = 0; rank < views.size(); ++rank) {
    const RankView& view = views[rank];
    check(!view.gpus.empty(), ExitCode::resources,
          "rank {} on host {} sees no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES there, or set device: "
          "cpu",
          rank, view.host);
    alike[{view.host, bus_ids(view)}].push_back(rank);
  }
  std::vector<RankSeat> seats(views.size());
  for (const auto& [sight, ranks] : alike) {
    const RankView& view = views[ranks.front()];
    const int64_t count = std::ssize(ranks);
    if (count > std::ssize(view.gpus) && share == ShareDevices::refused) refuse_sharing(view, count);
    for (size_t place = 0; place < ranks.size(); ++place) {
      seats[ranks[place]].device = static_cast<int>(place % view.gpus.size());
    }
  }
  std::map<std::pair<std::string, std::vector<std::string>>, size_t> turn;  // of equally near NICs
  for (size_t rank = 0; rank < views.size(); ++rank) {
    const RankView& view = views[rank];
    RankSeat& seat = seats[rank];
    seat.host = view.host;
    seat.local_rank = ranks_on[view.host]++;
    seat.gpu = view.gpus[static_cast<size_t>(seat.device)];
    seat.numa_node = seat.gpu.numa_node;
    const auto node = view.cpus_of_node.find(seat.numa_node);
    if (node != view.cpus_of_node.end()) seat.cpus = node->second;
    const std::vector<std::string> near = nearest_nics(seat.gpu, view.nics);
    if (!near.empty()) seat.nic = near[turn[{view.host, near}]++ % near.size()];
  }
  if (share == ShareDevices::refused) check_devices_apart(seats);
  return seats;
}

bool has_shared_device(std::span<const RankSeat> seats) {
  std::set<std::pair<std::string, std::string>> used;
  return !std::ranges::all_of(
      seats, [&](const RankSeat& seat) { return used.emplace(seat.host, seat.gpu.pci_bus_id).second; });
}

void check_tensor_groups(const Mesh& mesh, std::span<const std::string> hosts, std::string_view key) {
  check(std::ssize(hosts) == mesh.world(), "{} hosts for a mesh of {} ranks", hosts.size(), mesh.world());
  for (int first = 0; first < mesh.world(); first += mesh.tensor) {
    const int last = first + mesh.tensor - 1;  // tensor is the fastest axis: a group is a run of ranks
    const std::string& host = hosts[static_cast<size_t>(first)];
    for (int rank = first + 1; rank <= last; ++rank) {
      const std::string& other = hosts[static_cast<size_t>(rank)];
      if (other == host) continue;
      const int64_t here = std::ranges::count(hosts, host), there = std::ranges::count(hosts, other);
      fail(ExitCode::usage,
           "{} = {}: the group of ranks {} to {} spans the hosts {} ({} ranks) and {} ({} ranks), and every "
           "layer "
           "would wait for the network; choose a size that divides the ranks of each host, or set "
           "parallel.allow_tensor_across_nodes: true",
           key, mesh.tensor, first, last, host, here, other, there);
    }
  }
}

}  // namespace ptrain
