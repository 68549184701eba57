#include "parallel/comm/numa.h"

#include <dirent.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "kernels/base/error.h"
#include "parallel/comm/kernel_file.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

/// CUDA writes "0000:C1:00.0" or, in old versions, "00000000:C1:00.0"; the kernel "0000:c1:00.0".
fs::path pci_device(const fs::path& root, std::string_view bus_id) {
  if (bus_id.find(':') == 8) bus_id.remove_prefix(4);
  return root / "sys/bus/pci/devices" / lower(bus_id);
}

cpu_set_t* set_in(std::vector<cpu_set_t>& room, const CpuList& cpus) {
  const size_t bytes = room.size() * sizeof(cpu_set_t);
  CPU_ZERO_S(bytes, room.data());
  for (const int cpu : cpus) CPU_SET_S(cpu, bytes, room.data());
  return room.data();
}

/// Threads of this process by their ids.
std::vector<pid_t> threads_of_process() {
  std::vector<pid_t> threads;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc/self/task"), ::closedir);
  check(folder != nullptr, ExitCode::resources, "/proc/self/task: {}", std::strerror(errno));
  while (const dirent* entry = ::readdir(folder.get())) {
    pid_t id = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, id).ptr == end) threads.push_back(id);
  }
  return threads;
}

constexpr size_t room_for_cpus = 16;  // of 1024 each

}  // namespace

std::map<int, CpuList> read_numa_nodes(const fs::path& root) {
  std::map<int, CpuList> nodes;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root / "sys/devices/system/node", error)) {
    const std::string name = entry.path().filename().string();
    int node = 0;
    const char* end = name.data() + name.size();
    if (!name.starts_with("node") || std::from_chars(name.data() + 4, end, node).ptr != end) continue;
    const CpuList cpus = parse_cpu_list(first_line(entry.path() / "cpulist"));
    if (!cpus.empty()) nodes[node] = cpus;
  }
  return nodes;
}

int numa_node_of_pci(const fs::path& root, std::string_view bus_id) {
  const std::string text = first_line(pci_device(root, bus_id) / "numa_node");
  int node = -1;
  std::from_chars(text.data(), text.data() + text.size(), node);
  return node;
}

std::string pci_part_of(const fs::path& device) {
  fs::path part;
  for (const fs::path& word : device) {
    const std::string name = word.string();
    const bool is_root = name.starts_with("pci") && name.find(':') != std::string::npos;
    const bool is_device = std::ranges::count(name, ':') == 2 && name.find('.') != std::string::npos;
    if (part.empty() ? is_root : is_device) {
      part /= word;
    } else if (!part.empty()) {
      break;
    }
  }
  return part.string();
}

std::string pci_path_of(const fs::path& root, std::string_view bus_id) {
  std::error_code error;
  const fs::path device = fs::canonical(pci_device(root, bus_id), error);
  return error ? "" : pci_part_of(device);
}

Binding binding_to(const CpuList& node_cpus, const CpuList& allowed) {
  if (node_cpus.empty()) return {Binding::Kind::kept_unknown, allowed};
  CpuList both;
  std::ranges::set_intersection(allowed, node_cpus, std::back_inserter(both));
  const bool is_inside = both.size() == allowed.size();
  if (both.empty()) return {Binding::Kind::kept_elsewhere, allowed};
  if (allowed.size() <= node_cpus.size())
    return {is_inside ? Binding::Kind::kept_narrower : Binding::Kind::kept_elsewhere, allowed};
  return {Binding::Kind::bound, both};
}

CpuList allowed_cpus() {
  std::vector<cpu_set_t> room(room_for_cpus);
  const size_t bytes = room.size() * sizeof(cpu_set_t);
  const bool is_done = ::sched_getaffinity(0, bytes, set_in(room, {})) == 0;  // before errno is read
  check(is_done, ExitCode::resources, "the cores of this process cannot be read: {}", std::strerror(errno));
  CpuList cpus;
  for (int cpu = 0; cpu < static_cast<int>(bytes * 8); ++cpu) {
    if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, room.data())) cpus.push_back(cpu);
  }
  return cpus;
}

Binding bind_process(const CpuList& node_cpus) {
  const Binding binding = binding_to(node_cpus, allowed_cpus());
  if (binding.kind != Binding::Kind::bound) return binding;
  std::vector<cpu_set_t> room(room_for_cpus);
  const cpu_set_t* set = set_in(room, binding.cpus);
  for (const pid_t thread : threads_of_process()) {
    const bool is_done = ::sched_setaffinity(thread, room.size() * sizeof(cpu_set_t), set) == 0;
    // A thread may have ended since the folder was read.
    check(is_done || errno == ESRCH, ExitCode::resources, "this rank cannot be bound to the cores {}: {}",
          to_string(binding.cpus), std::strerror(errno));
  }
  return binding;
}

}  // namespace ptrain
