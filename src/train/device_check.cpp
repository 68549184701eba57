#include "src/train/device_check.h"

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

void check_memory(Communicator& world, const Plan& plan, const RunDevice& device) {
  if (device.context.device.kind == DeviceKind::cpu) return;
  agreed(world, [&] {
    const std::string objection =
        objection_to_memory(plan, world.rank(), runtime::device_info(device.context.device.index));
    check(objection.empty(), ExitCode::resources, "{}", objection);
  });
}

}  // namespace ptrain
