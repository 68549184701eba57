#include "parallel/plan/hardware.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr int64_t GB = 1'000'000'000;
constexpr int64_t GiB = int64_t{1} << 30;
constexpr double tera = 1e12, giga = 1e9;
constexpr const char* nvidia_aws = "NVIDIA's data sheet (dense, no sparsity); network: AWS's instance page, ";

/// Peaks, memory and its speed are the makers'. Links: NVLink's or PCIe's one-way rate. Networks: those of
/// the AWS machines with 8 such devices, an eighth each.
std::array<Hardware, 6> devices() {
  return {{
      {"h200", 989 * tera, 0.65, 141 * GB, 2 * GiB, 4800 * giga, 450 * giga, 50 * giga, 8, "p5en.48xlarge"},
      {"h100", 989 * tera, 0.60, 80 * GB, 2 * GiB, 3350 * giga, 450 * giga, 50 * giga, 8, "p5.48xlarge"},
      {"a100-80", 312 * tera, 0.60, 80 * GB, 2 * GiB, 2039 * giga, 300 * giga, 6.25 * giga, 8,
       "p4de.24xlarge"},
      {"a100-40", 312 * tera, 0.60, 40 * GB, 2 * GiB, 1555 * giga, 300 * giga, 6.25 * giga, 8,
       "p4d.24xlarge"},
      {"a10g", 70 * tera, 0.55, 24 * GB, 1 * GiB, 600 * giga, 25 * giga, 1.56 * giga, 8, "g5.48xlarge"},
      {"l4", 121 * tera, 0.50, 24 * GB, 1 * GiB, 300 * giga, 25 * giga, 1.56 * giga, 8, "g6.48xlarge"},
  }};
}

Hardware cpu_of(std::string_view name) {
  const std::string_view digits = name.substr(std::string_view("cpu:").size());
  double gib = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), gib);
  check(error == std::errc() && end == digits.data() + digits.size() && gib > 0 && gib <= 1e6,
        ExitCode::usage, "--hardware {}: give the memory of a rank in GiB, for example cpu:16", name);
  return {.name = std::string(name),
          .peak_flops = 100 * giga,
          .reachable = 0.75,
          .memory_bytes = static_cast<int64_t>(gib * double(GiB)),
          .reserved_bytes = GiB / 8,
          .memory_bytes_per_s = 10 * giga,
          .link_bytes_per_s = 2 * giga,
          .network_bytes_per_s = 1 * giga,
          .ranks_per_node = 8,
          .source = "assumed for one core with 512-bit vectors; `ptrain bench gemm` measures yours"};
}

}  // namespace

Hardware hardware_of(std::string_view name) {
  if (name.starts_with("cpu:")) return cpu_of(name);
  std::string known;
  for (Hardware& hardware : devices()) {
    if (hardware.name == name) {
      hardware.source = nvidia_aws + hardware.source;
      return hardware;
    }
    known += hardware.name + ", ";
  }
  fail(ExitCode::usage, "--hardware {} is not known; choose one of {}or cpu:GIB (memory of a rank)", name,
       known);
}

}  // namespace ptrain
