#include "launch/gpu.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/base/log.h"
#include "parallel/comm/network_probe.h"
#include "parallel/comm/numa.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/banner.h"
#include "src/train/device_check.h"

namespace ptrain {
namespace {

// The compute stream, one for reductions, and one a lane of the pipeline.
constexpr int streams_of_rank = 4;

bool has_usable_gpu(const Config& config) {
  return config.device != Config::Device::cpu && runtime::device_count() > 0;
}

/// True where all ranks use a GPU, false where none does.
bool wants_gpu(Communicator& world, const Config& config) {
  agreed(world, [&] {
    const runtime::RuntimeVersions versions = runtime::versions();
    check(config.device != Config::Device::cuda || versions.toolkit > 0, ExitCode::usage,
          "device: cuda, but this program was built without CUDA; use cpu or auto, or build where nvcc is "
          "found");
    check(config.device != Config::Device::cuda || runtime::device_count() > 0, ExitCode::resources,
          "device: cuda, but this machine has no GPU that can be used ({}); use cpu or auto",
          versions.driver == 0 ? "no NVIDIA driver answers" : "the driver answers, and shows no device");
  });
  int64_t with_gpu = has_usable_gpu(config) ? 1 : 0;
  world.all_reduce(Tensor(&with_gpu, {1}, DType::i64));
  agreed(world, [&] {
    check(with_gpu == 0 || with_gpu == world.size(), ExitCode::resources,
          "device: auto, but only {} of {} ranks see a GPU; say device: cpu, or start on machines that have "
          "them",
          with_gpu, world.size());
  });
  return with_gpu > 0;
}

std::vector<GpuSeat> gpus_of_host() {
  std::vector<GpuSeat> gpus;
  for (int index = 0; index < runtime::device_count(); ++index) {
    const runtime::DeviceInfo info = runtime::device_info(index);
    gpus.push_back({.name = info.name,
                    .total_bytes = info.total_bytes,
                    .major = info.major,
                    .minor = info.minor,
                    .pci_bus_id = info.pci_bus_id,
                    .pci_path = {}});
  }
  return gpus;
}

/// Threads and the memory they touch next to the GPU.
void bind_near(const RankSeat& seat) {
  if (seat.cpus.empty()) return;
  const Binding binding = bind_process(seat.cpus);
  if (binding.kind == Binding::Kind::kept_elsewhere) {
    log::warn(
        "GPU {} lies at NUMA node {} (cores {}), but this rank is bound to cores {}: start it with "
        "--bind-to none, or bind it there",
        seat.device, seat.numa_node, to_string(seat.cpus), to_string(binding.cpus));
  }
}

/// The network's variables, before CUDA and NCCL read them.
NetworkDecision decide(Session& session, const Arguments& arguments, const Config& config, int nccl_version,
                       bool shares_devices, const std::filesystem::path& nccl_log) {
  const auto slow = config.parallel.allow_slow_network ? SlowNetwork::allowed : SlowNetwork::refused;
  const NetworkReport report =
      probe_network({.environment = [&](const char* name) { return arguments.variable(name); },
                     .nccl_version = nccl_version,
                     .hosts = session.number_of_hosts(),
                     .streams = streams_of_rank,
                     .shares_devices = shares_devices,
                     .nccl_log = nccl_log.string()});
  NetworkDecision decision = decide_network(report, slow);
  agreed(session.world(), [&] { check(decision.refusal.empty(), ExitCode::usage, "{}", decision.refusal); });
  for (const EnvironmentSetting& setting : decision.settings)
    ::setenv(setting.name.c_str(), setting.value.c_str(), 0);
  // A kernel that is loaded late waits for the whole GPU, and so for other ranks: all are loaded at the
  // start.
  if (session.world().size() > 1) ::setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  if (config.train.deterministic != Config::Deterministic::no) {
    ::setenv("NCCL_ALGO", "Ring", 0);
    ::setenv("NCCL_PROTO", "Simple", 0);
  }
  if (session.world().rank() == 0)
    for (const std::string& warning : decision.warnings) log::warn("{}", warning);
  return decision;
}

}  // namespace

std::optional<std::filesystem::path> cache_file(const Arguments& arguments, std::string_view name) {
  const std::filesystem::path below = std::filesystem::path("ptrain") / name;
  const char* cache = arguments.variable("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/')
    return cache / below;  // a relative one is to be ignored, by its rules
  const char* home = arguments.variable("HOME");
  if (home != nullptr && *home == '/') return std::filesystem::path(home) / ".cache" / below;
  return std::nullopt;
}

void Gpu::judge_network(Communicator& world) const {
  agreed(world, [&] {
    if (nccl_log.empty() || !std::filesystem::exists(nccl_log)) return;
    const ChosenNetwork chosen = network_in_nccl_log(read_text(nccl_log, int64_t{64} << 20));
    std::filesystem::remove(nccl_log);
    if (world.rank() == 0) log::info("{}", chosen_line(chosen, network));
    const std::string objection = objection_to(chosen, network, slow_network);
    check(objection.empty(), ExitCode::usage, "{}", objection);
  });
}

std::unique_ptr<Gpu> start_gpu(Session& session, const Arguments& arguments, const Config& config) {
  Communicator& world = session.world();
  if (config.device == Config::Device::cpu || !wants_gpu(world, config)) return nullptr;
  auto gpu = std::make_unique<Gpu>();
  // 1. Which GPU, and the cores beside it.
  RankView mine;
  agreed(world, [&] {
    mine = view_of_rank("/", session.hosts()[static_cast<size_t>(world.rank())], gpus_of_host());
  });
  const std::vector<RankView> views = gather_views(world, mine);
  std::vector<RankSeat> seats;
  agreed(world, [&] {
    seats =
        seats_of_ranks(views, config.parallel.share_devices ? ShareDevices::allowed : ShareDevices::refused);
  });
  const RankSeat& seat = seats[static_cast<size_t>(world.rank())];
  agreed(world, [&] {
    const std::string objection = objection_to_device(runtime::versions(), runtime::device_info(seat.device),
                                                      resolved_precision(config, Config::Device::cuda));
    check(objection.empty(), ExitCode::resources, "rank {} on {}: {}", world.rank(), seat.host, objection);
    bind_near(seat);
  });
  // 2. The network, then CUDA and its libraries.
  gpu->nccl = make_nccl();
  const bool shares = has_shared_device(seats);
  constexpr int first_that_shares = 23000;
  if (shares && gpu->nccl && gpu->nccl->version() < first_that_shares) gpu->nccl.reset();
  if (shares && gpu->nccl) ::setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  if (gpu->nccl && world.size() > 1)
    gpu->nccl_log = std::filesystem::temp_directory_path() / fmt::format("ptrain-nccl-{}.log", ::getpid());
  gpu->slow_network = config.parallel.allow_slow_network ? SlowNetwork::allowed : SlowNetwork::refused;
  gpu->network =
      decide(session, arguments, config, gpu->nccl ? gpu->nccl->version() : 0, shares, gpu->nccl_log);
  const NetworkDecision& decision = gpu->network;
  gpu->device = {DeviceKind::cuda, seat.device};
  agreed(world, [&] {
    runtime::use_device(seat.device);
    gpu->stream = Stream(gpu->device, runtime::Priority::normal);
    gpu->libraries = make_libraries(
        gpu->device,
        {.algorithm_cache = cache_file(arguments, "products.txt").value_or(std::filesystem::path{}),
         .is_deterministic = config.train.deterministic != Config::Deterministic::no});
  });
  gpu->comms = {
      .nccl = gpu->nccl.get(), .network = decision.nccl, .edges = {}, .hosts = session.number_of_hosts()};
  gpu->banner = seat_lines(seats);
  for (const std::string& line : decision_lines(decision)) gpu->banner.push_back(line);
  return gpu;
}

}  // namespace ptrain
