// The cores and memory nodes of a host, read from /sys, and the binding of this process to one of them.
// Not for choosing the node: parallel/plan/placement does.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "parallel/plan/placement.h"

namespace ptrain {

/// Cores of each memory node, from <root>/sys/devices/system/node; nodes without cores are left out. Empty
/// where the kernel tells nothing.
std::map<int, CpuList> read_numa_nodes(const std::filesystem::path& root);

/// Of a PCI device by its bus id, in either case: its memory node (-1 = the host has one, or it is not told)
/// and the bridges down to it; see GpuSeat::pci_path. An unknown device has neither.
int numa_node_of_pci(const std::filesystem::path& root, std::string_view bus_id);
std::string pci_path_of(const std::filesystem::path& root, std::string_view bus_id);
/// "…/devices/pci0000:15/0000:15:01.0/infiniband/x" -> "pci0000:15/0000:15:01.0"
std::string pci_part_of(const std::filesystem::path& device);

/// What binding to a node's cores comes to. Pure.
struct Binding {
  enum class Kind { bound, kept_narrower, kept_elsewhere, kept_unknown };
  Kind kind = Kind::kept_unknown;
  CpuList cpus;  // that the process may use then
};
/// A process that already has no more cores than the node was bound by its launcher or user and is left alone
/// (kept_narrower; kept_elsewhere where some of its cores lie outside of the node, which is worth a warning).
/// Else it gets those of its cores that belong to the node. Example, node 0-3: 0-7 -> 0-3; 2 -> 2; 4-7 ->
/// 4-7.
Binding binding_to(const CpuList& node_cpus, const CpuList& allowed);

/// Cores that this process may use.
CpuList allowed_cpus();
/// Binds every thread that this process has to binding_to(node_cpus, allowed_cpus()); later threads inherit
/// it and so does the place of memory that they touch first. Errors (resources): the kernel refuses.
Binding bind_process(const CpuList& node_cpus);

}  // namespace ptrain
