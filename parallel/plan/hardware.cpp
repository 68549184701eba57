#include "parallel/plan/hardware.h"

#include <charconv>
#include <limits>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr double tera = 1e12, giga = 1e9, gigabit = 1e9 / 8;
constexpr int64_t GiB = int64_t{1} << 30;

constexpr int64_t gib(double number) {
  return static_cast<int64_t>(number * static_cast<double>(GiB));
}

/// NVLink and the network reach these shares of their rates in large all-reduces: 231 of 300 GB/s in a
/// p4d.24xlarge, 29.6 of 50 over four of them (nccl-tests, github.com/NVIDIA/nccl/issues/527).
constexpr double link_share = 0.77, network_share = 0.6;

/// Makers' data sheets, dense 16-bit products; a rate given for both directions is halved. Memory: what CUDA
/// reports as total. The share of a host's memory bandwidth is assumed: 8 channels of DDR4-3200 or DDR5-4800
/// a socket, two sockets, 8 GPUs, of which half is reached.
std::vector<Hardware> devices() {
  const auto device = [](const char* name, double peak, double reachable, double memory_gib,
                         double reserved_gib, double memory_rate, double link, double host_link,
                         double host_rate, const char* source) {
    Hardware hardware;
    hardware.name = name;
    hardware.peak_flops = peak * tera;
    hardware.reachable = reachable;
    hardware.memory_bytes = gib(memory_gib);
    hardware.reserved_bytes = gib(reserved_gib);
    hardware.memory_bytes_per_s = memory_rate * giga;
    hardware.link_bytes_per_s = link * giga;
    hardware.links_reach = link_share;
    hardware.network_reaches = network_share;
    hardware.has_rings = true;
    hardware.host_link_bytes_per_s = host_link * giga;
    hardware.host_bytes_per_s = host_rate * giga;
    hardware.source = source;
    return hardware;
  };
  return {
      device(
          "h200", 989, 0.65, 139, 2, 4800, 450, 50, 38,
          "NVIDIA H200 data sheet: 1,979 TFLOP/s with sparsity, 4.8 TB/s, NVLink 900 GB/s both ways, PCIe 5"),
      device("h100", 989, 0.60, 79.1, 2, 3350, 450, 50, 25,
             "NVIDIA H100 SXM data sheet: 1,979 TFLOP/s with sparsity, 3.35 TB/s, NVLink 900 GB/s both ways, "
             "PCIe 5"),
      device("a100-80", 312, 0.60, 79.1, 2, 2039, 300, 25, 17,
             "NVIDIA A100 SXM data sheet: 312 TFLOP/s, 2,039 GB/s, NVLink 600 GB/s both ways, PCIe 4"),
      device("a100-40", 312, 0.60, 39.4, 2, 1555, 300, 25, 17,
             "NVIDIA A100 SXM data sheet: 312 TFLOP/s, 1,555 GB/s, NVLink 600 GB/s both ways, PCIe 4"),
      device("a10g", 70, 0.55, 22, 1, 600, 25, 12, 17,
             "NVIDIA A10G: 70 TFLOP/s, 600 GB/s, PCIe 4 without NVLink"),
      device("l4", 121, 0.50, 22, 1, 300, 25, 12, 17,
             "NVIDIA L4 data sheet: 242 TFLOP/s with sparsity, 300 GB/s, PCIe 4 without NVLink"),
  };
}

/// The instance whose network a device named alone has.
std::string_view home_of(std::string_view device) {
  return device == "h200"      ? "p5en.48xlarge"
         : device == "h100"    ? "p5.48xlarge"
         : device == "a100-80" ? "p4de.24xlarge"
         : device == "a100-40" ? "p4d.24xlarge"
         : device == "a10g"    ? "g5.48xlarge"
                               : "g6.48xlarge";
}

Hardware cpu_of(std::string_view name) {
  const std::string_view digits = name.substr(std::string_view("cpu:").size());
  double size = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), size);
  check(error == std::errc() && end == digits.data() + digits.size() && size > 0 && size <= 1e6,
        ExitCode::usage, "--hardware {}: give the memory of a rank in GiB, for example cpu:16", name);
  Hardware hardware;
  hardware.name = name;
  hardware.peak_flops = 100 * giga;
  hardware.reachable = 0.75;
  hardware.memory_bytes = gib(size);
  hardware.reserved_bytes = GiB / 8;
  hardware.memory_bytes_per_s = 10 * giga;
  hardware.link_bytes_per_s = 2 * giga;
  hardware.network_bytes_per_s = 1 * giga;
  hardware.source = "assumed for one core with 512-bit vectors; `ptrain bench gemm` measures yours";
  return hardware;
}

}  // namespace

std::vector<InstanceKind> instance_kinds() {
  // AWS's instance pages; a range ("up to") counts with its upper end.
  return {
      {"p5en.48xlarge", "h200", 8, 3200 * gigabit, 2048 * GiB},
      {"p5e.48xlarge", "h200", 8, 3200 * gigabit, 2048 * GiB},
      {"p5.48xlarge", "h100", 8, 3200 * gigabit, 2048 * GiB},
      {"p4de.24xlarge", "a100-80", 8, 400 * gigabit, 1152 * GiB},
      {"p4d.24xlarge", "a100-40", 8, 400 * gigabit, 1152 * GiB},
      {"g5.48xlarge", "a10g", 8, 100 * gigabit, 768 * GiB},
      {"g5.24xlarge", "a10g", 4, 50 * gigabit, 384 * GiB},
      {"g5.12xlarge", "a10g", 4, 40 * gigabit, 192 * GiB},
      {"g5.16xlarge", "a10g", 1, 25 * gigabit, 256 * GiB},
      {"g5.8xlarge", "a10g", 1, 25 * gigabit, 128 * GiB},
      {"g5.4xlarge", "a10g", 1, 25 * gigabit, 64 * GiB},
      {"g5.2xlarge", "a10g", 1, 10 * gigabit, 32 * GiB},
      {"g5.xlarge", "a10g", 1, 10 * gigabit, 16 * GiB},
      {"g6.48xlarge", "l4", 8, 100 * gigabit, 768 * GiB},
      {"g6.24xlarge", "l4", 4, 50 * gigabit, 384 * GiB},
      {"g6.12xlarge", "l4", 4, 40 * gigabit, 192 * GiB},
      {"g6.16xlarge", "l4", 1, 25 * gigabit, 256 * GiB},
      {"g6.8xlarge", "l4", 1, 25 * gigabit, 128 * GiB},
      {"g6.4xlarge", "l4", 1, 25 * gigabit, 64 * GiB},
      {"g6.2xlarge", "l4", 1, 10 * gigabit, 32 * GiB},
      {"g6.xlarge", "l4", 1, 10 * gigabit, 16 * GiB},
  };
}

InstanceKind instance_kind_of(std::string_view name) {
  const std::string_view bare = name.starts_with("ml.") ? name.substr(3) : name;
  std::string known;
  for (const InstanceKind& kind : instance_kinds()) {
    if (kind.name == bare) return kind;
    known += (known.empty() ? "" : ", ") + kind.name;
  }
  fail(ExitCode::usage, "the instance kind {} is not known; known are {}", name, known);
}

Hardware hardware_of(const InstanceKind& kind) {
  for (Hardware& hardware : devices()) {
    if (hardware.name != kind.hardware) continue;
    hardware.ranks_per_node = kind.gpus;
    hardware.network_bytes_per_s = kind.network_bytes_per_s / kind.gpus;
    hardware.host_memory_bytes = kind.memory_bytes / kind.gpus;
    hardware.source += fmt::format("; AWS {}: {:.0f} Gb/s", kind.name, kind.network_bytes_per_s / gigabit);
    return hardware;
  }
  fail(ExitCode::defect, "instance {} has unknown hardware {}", kind.name, kind.hardware);
}

Hardware hardware_of(std::string_view name) {
  if (name.starts_with("cpu:")) return cpu_of(name);
  std::string known;
  for (const Hardware& hardware : devices()) {
    if (hardware.name == name) return hardware_of(instance_kind_of(home_of(name)));
    known += hardware.name + ", ";
  }
  fail(ExitCode::usage, "--hardware {} is not known; choose one of {}or cpu:GIB (memory of a rank)", name,
       known);
}

Hardware ideal_hardware(std::optional<int64_t> memory_bytes) {
  constexpr double free = 1e300;
  Hardware hardware;
  hardware.name = "ideal";
  hardware.peak_flops = hardware.reachable = 1;
  hardware.memory_bytes = memory_bytes.value_or(std::numeric_limits<int64_t>::max() / 2);
  hardware.memory_bytes_per_s = hardware.link_bytes_per_s = hardware.network_bytes_per_s = free;
  hardware.host_bytes_per_s = free;
  hardware.host_link_bytes_per_s = free;
  hardware.host_memory_bytes = std::numeric_limits<int64_t>::max() / 2;
  hardware.source = "FLOPs alone";
  return hardware;
}

}  // namespace ptrain
