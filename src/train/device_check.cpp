#include "src/train/device_check.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "parallel/comm/agree.h"

namespace ptrain {
namespace {

/// 13000 -> "13.0"
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

double gib(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

/// The micro-batch that would fit, by the part of the ledger that grows with it; 0: none does.
int64_t fitting_micro(const Plan& plan, int64_t fixed, int64_t growing, int64_t free_bytes) {
  const int64_t room = free_bytes - fixed;
  if (room <= 0 || growing <= 0) return 0;
  return static_cast<int64_t>(static_cast<double>(plan.parallel.micro) * static_cast<double>(room) /
                              static_cast<double>(growing));
}

}  // namespace

std::string name_of_architecture(const runtime::DeviceInfo& device) {
  return fmt::format("sm_{}{}", device.major, device.minor);
}

std::string objection_to_device(const runtime::RuntimeVersions& versions, const runtime::DeviceInfo& device,
                                Config::Precision precision) {
  if (versions.driver / 1000 < versions.toolkit / 1000) {
    return fmt::format(
        "the NVIDIA driver serves CUDA {}, but this program was built with CUDA {}: install a newer driver, "
        "or build with a toolkit of the driver's major version",
        version_text(versions.driver), version_text(versions.toolkit));
  }
  const int architecture = 10 * device.major + device.minor;
  if (architecture < 80) {
    return fmt::format(
        "{} is {}: the kernels are built for sm_80 (A100) and later; use device: cpu on this machine",
        device.name, name_of_architecture(device));
  }
  if (precision == Config::Precision::fp8 && architecture < 89) {
    return fmt::format(
        "precision: fp8, but {} is {} and has no 8-bit products (sm_89 and later do); use bf16", device.name,
        name_of_architecture(device));
  }
  return {};
}

std::string objection_to_memory(const Plan& plan, int rank, const runtime::DeviceInfo& device) {
  const Ledger ledger = ledger_of(plan, rank);
  const int64_t planned = ledger.total_bytes(), wanted = planned + library_bytes;
  if (wanted <= device.free_bytes) return {};
  const int64_t growing = ledger.bytes(MemoryKind::activations) + ledger.bytes(MemoryKind::scratch);
  const int64_t micro = fitting_micro(plan, planned - growing + library_bytes, growing, device.free_bytes);
  const std::string fix =
      micro >= 1 ? fmt::format("batch.micro: {} would fit", micro)
                 : std::string(
                       "no batch.micro would fit: cut the model over more ranks by parallel.tensor or "
                       "parallel.pipeline, or shard its optimizer over more data ranks");
  return fmt::format(
      "rank {} wants {:.2f} GiB ({:.2f} by the plan, {:.2f} for CUDA and its libraries), but {} has {:.2f} "
      "GiB "
      "free of {:.2f}; {}",
      rank, gib(wanted), gib(planned), gib(library_bytes), device.name, gib(device.free_bytes),
      gib(device.total_bytes), fix);
}

int64_t host_memory_bytes() {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  int64_t limit = 0;
  std::ifstream file("/sys/fs/cgroup/memory.max");  // "max" where there is none
  return file >> limit && limit > 0 ? std::min(machine, limit) : machine;
}

std::string objection_to_host_memory(const Plan& plan, int rank, DeviceKind device,
                                     std::span<const std::string> hosts, int64_t host_bytes) {
  int64_t planned = 0, copies = 0;
  int ranks = 0;
  for (int other = 0; other < plan.mesh.world(); ++other) {
    if (!hosts.empty() && hosts[static_cast<size_t>(other)] != hosts[static_cast<size_t>(rank)]) continue;
    planned +=
        (device == DeviceKind::cpu ? ledger_of(plan, other) : host_ledger_of(plan, other)).total_bytes();
    copies += snapshot_bytes(plan, other);
    ++ranks;
  }
  if (planned + copies <= host_bytes) return {};
  std::vector<std::string> fixes;
  if (copies > 0 && planned <= host_bytes) fixes.emplace_back("set checkpoint.asynchronous to false");
  if (plan.parallel.offload == Offload::optimizer) fixes.emplace_back("set parallel.offload to none");
  fixes.emplace_back("share the state over more hosts by parallel.zero");
  fixes.emplace_back("start fewer ranks a host");
  return fmt::format(
      "the {} rank{} here want {:.2f} GiB of host memory ({:.2f} by the plan, {:.2f} for copies of the state "
      "that saves are written from), but the host has {:.2f}; {}",
      ranks, ranks == 1 ? "" : "s", gib(planned + copies), gib(planned), gib(copies), gib(host_bytes),
      fmt::join(fixes, ", or "));
}

void check_memory(Communicator& world, const Plan& plan, const RunDevice& device,
                  std::span<const std::string> hosts) {
  const DeviceKind kind = device.context.device.kind;
  agreed(world, [&] {
    if (kind == DeviceKind::cuda) {
      const std::string objection =
          objection_to_memory(plan, world.rank(), runtime::device_info(device.context.device.index));
      check(objection.empty(), ExitCode::resources, "{}", objection);
    }
    const std::string of_host =
        objection_to_host_memory(plan, world.rank(), kind, hosts, host_memory_bytes());
    check(of_host.empty(), ExitCode::resources, "{}", of_host);
  });
}

}  // namespace ptrain
