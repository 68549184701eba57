#include "parallel/comm/network_probe.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <sstream>

#include "parallel/comm/host_objects.h"
#include "parallel/comm/kernel_file.h"
#include "parallel/comm/network_libraries.h"
#include "parallel/comm/numa.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

template <class Number>
Number number_in(std::string_view text, Number otherwise) {
  Number number = otherwise;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  return result.ec == std::errc{} ? number : otherwise;
}

/// Names in a folder, sorted, so that every start sees the same order.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

fs::path real_path(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  return error ? fs::path() : real;
}

constexpr std::string_view vendor_of_efa = "0x1d0f";

NetworkKind kind_of(const fs::path& device) {
  const bool is_efa = first_line(device / "device/vendor") == vendor_of_efa ||
                      real_path(device / "device/driver").filename() == "efa";
  if (is_efa) return NetworkKind::efa;
  return first_line(device / "ports/1/link_layer") == "InfiniBand" ? NetworkKind::infiniband
                                                                   : NetworkKind::roce;
}

/// The first index whose address is RoCE v2's over IPv4, "0000:…:ffff:0a00:0001".
int roce_v2_gid(const fs::path& port) {
  for (int index = 0; index < 256; ++index) {
    const std::string name = std::to_string(index);
    const std::string type = first_line(port / "gid_attrs/types" / name);
    if (type != "RoCE v2") continue;
    if (first_line(port / "gids" / name).starts_with("0000:0000:0000:0000:0000:ffff:")) return index;
  }
  return -1;
}

RdmaDevice rdma_device(const fs::path& folder) {
  const fs::path port = folder / "ports/1";
  RdmaDevice device{.name = folder.filename().string(), .kind = kind_of(folder)};
  const std::string state = first_line(port / "state");  // "4: ACTIVE"
  device.is_active = state.empty() || state.starts_with("4");
  device.gbit_per_s = number_in(first_line(port / "rate"), 0.0);  // "200 Gb/sec (4X HDR)"
  if (device.kind == NetworkKind::roce) device.roce_v2_gid = roce_v2_gid(port);
  constexpr std::string_view mark = "Global tclass=";
  const std::string traffic_class = first_line(folder / "tc/1/traffic_class");
  if (traffic_class.starts_with(mark)) {
    device.traffic_class = number_in(std::string_view(traffic_class).substr(mark.size()), 0);
  }
  return device;
}

/// The interface of /proc/net/route whose destination is everything.
std::string default_route(const fs::path& root) {
  std::ifstream in(root / "proc/net/route");
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string name, destination;
    words >> name >> destination;
    if (destination == "00000000") return name;
  }
  return "";
}

NetworkInterface network_interface(const fs::path& folder, std::string_view route) {
  NetworkInterface one{.name = folder.filename().string()};
  const std::string state = first_line(folder / "operstate");
  one.is_up = state == "up" || state == "unknown";  // drivers that do not tell say "unknown"
  // Bonds have no hardware of their own, but members that do.
  one.is_physical = fs::exists(folder / "device") || fs::exists(folder / "bonding");
  one.has_default_route = one.name == route;
  one.mbit_per_s = std::max(0, number_in(first_line(folder / "speed"), 0));
  return one;
}

constexpr std::string_view loopback = "772";  // ARPHRD_LOOPBACK

/// "Linux version 6.1.0-18-amd64 (…)"
Version kernel_version(const fs::path& root) {
  constexpr std::string_view mark = "Linux version ";
  const std::string line = first_line(root / "proc/version");
  const size_t at = line.find(mark);
  return at == std::string::npos ? Version{} : parse_version(std::string_view(line).substr(at + mark.size()));
}

/// EC2's name of the machine, which Nitro shows as the product; empty elsewhere.
std::string instance_kind(const fs::path& root) {
  const fs::path dmi = root / "sys/devices/virtual/dmi/id";
  if (!first_line(dmi / "sys_vendor").starts_with("Amazon")) return "";
  return first_line(dmi / "product_name");
}

}  // namespace

NetworkReport probe_network(const NetworkProbe& probe) {
  NetworkReport report;
  report.hosts = probe.hosts;
  report.streams = probe.streams;
  report.shares_devices = probe.shares_devices;
  report.nccl_log = probe.nccl_log;
  report.nccl = nccl_version_of(probe.nccl_version);
  report.kernel = kernel_version(probe.root);
  report.instance_kind = instance_kind(probe.root);
  const fs::path rdma = probe.root / "sys/class/infiniband";
  for (const std::string& name : names_in(rdma)) report.rdma.push_back(rdma_device(rdma / name));
  const fs::path net = probe.root / "sys/class/net";
  const std::string route = default_route(probe.root);
  for (const std::string& name : names_in(net)) {
    const bool is_interface = fs::is_directory(net / name) && first_line(net / name / "type") != loopback;
    if (is_interface) report.interfaces.push_back(network_interface(net / name, route));
  }
  const auto value_of = [&](const char* name) {
    return probe.environment ? probe.environment(name) : nullptr;
  };
  for (const char* name : watched_variables()) {
    if (const char* value = value_of(name)) report.set_by_user[name] = value;
  }
  const char* search_path = value_of("LD_LIBRARY_PATH");
  find_network_libraries(probe.root, search_path == nullptr ? "" : search_path, report);
  return report;
}

RankView view_of_rank(const fs::path& root, std::string host, std::vector<GpuSeat> gpus) {
  RankView view{.host = std::move(host), .gpus = std::move(gpus), .cpus_of_node = read_numa_nodes(root)};
  for (GpuSeat& gpu : view.gpus) {
    gpu.pci_path = pci_path_of(root, gpu.pci_bus_id);
    gpu.numa_node = numa_node_of_pci(root, gpu.pci_bus_id);
  }
  const fs::path rdma = root / "sys/class/infiniband";
  for (const std::string& name : names_in(rdma)) {
    if (!rdma_device(rdma / name).is_active) continue;
    view.nics.push_back({.name = name,
                         .pci_path = pci_part_of(real_path(rdma / name / "device")),
                         .numa_node = number_in(first_line(rdma / name / "device/numa_node"), -1)});
  }
  return view;
}

std::vector<RankView> gather_views(Communicator& world, const RankView& mine) {
  std::vector<RankView> views;
  for (const std::string& text : all_gather_text(world, to_text(mine))) {
    views.push_back(rank_view_from_text(text));
  }
  return views;
}

}  // namespace ptrain
