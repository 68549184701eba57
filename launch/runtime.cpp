#include "launch/runtime.h"

#include "kernels/base/fault.h"
#include "kernels/base/log.h"
#include "launch/sagemaker.h"
#include "launch/threads.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/mpi_interfaces.h"
#include "src/train/config_write.h"

namespace ptrain {
namespace {

log::Level level_of(Config::LogLevel level) {
  switch (level) {
    case Config::LogLevel::debug:
      return log::Level::debug;
    case Config::LogLevel::info:
      return log::Level::info;
    case Config::LogLevel::warning:
      return log::Level::warning;
    case Config::LogLevel::error:
      return log::Level::error;
  }
  return log::Level::info;
}

}  // namespace

namespace {

/// Before MPI starts: with several hosts and an interface by which they are not reached it waits for ever.
void check_interfaces(const Arguments& arguments) {
  const char* include = arguments.variable("OMPI_MCA_btl_tcp_if_include");
  const char* ranks = arguments.variable("OMPI_COMM_WORLD_SIZE");
  const char* ranks_here = arguments.variable("OMPI_COMM_WORLD_LOCAL_SIZE");
  if (include == nullptr || ranks == nullptr || ranks_here == nullptr) return;
  if (std::string_view(ranks) == ranks_here) return;
  const std::string objection = objection_to_interfaces(include, host_interfaces());
  check(objection.empty(), ExitCode::usage, "{}", objection);
}

/// A file of the configuration that each host has for itself may have been changed on one of them alone.
void agree_on_config(Communicator& world, const Config& config) {
  const std::string mine = settings_text(config);
  agree_alike(world, ExitCode::usage, mine, [&](std::string_view first) {
    const DifferentLines lines = first_difference(mine, first);
    const size_t blank = lines.mine.find(' ');
    return fmt::format(
        "the configuration is not the same on all ranks: {} is {} here and {} on rank 0; give "
        "every host the same file",
        lines.mine.substr(0, blank), lines.mine.substr(blank + 1), lines.first.substr(blank + 1));
  });
}

}  // namespace

MeshComms tensor_group(Runtime& runtime) {
  const Mesh mesh{.pipeline = 1, .data = 1, .tensor = runtime.world.size()};
  if (runtime.context.device.kind == DeviceKind::cpu) return make_mesh_comms(runtime.world, mesh);
  return make_device_comms(runtime.world, mesh, runtime.context.device, *runtime.context.stream,
                           runtime.device.comms);
}

int run_on_ranks(const Arguments& arguments, Config::LogLevel level,
                 const std::function<int(Runtime&)>& program) {
  Config config;
  config.device = Config::Device::cpu;
  config.log.level = level;
  return run_on_ranks(arguments, config, program);
}

int run_on_ranks(const Arguments& arguments, const Config& config,
                 const std::function<int(Runtime&)>& program) {
  check_interfaces(arguments);
  Session session(find_launcher([&](const char* name) { return arguments.variable(name); }),
                  {.on_failure = [&](std::string_view reason) {
                    sagemaker::note_failure(arguments.environment, reason);
                  }});
  return session.run([&] {
    Communicator& world = session.world();
    log::configure(level_of(config.log.level), world.rank(), world.size());
    const char* faults = arguments.variable("PTRAIN_FAULT");
    agreed(world, [&] { fault::arm(faults == nullptr ? "" : faults, world.rank()); });
    agree_on_config(world, config);
    const std::unique_ptr<Gpu> gpu = start_gpu(session, arguments, config);
    // After the GPU has drawn the process to its cores.
    ThreadChoice choice;
    agreed(world, [&] {
      choice = threads_of_rank(arguments.variable("OMP_NUM_THREADS"), allowed_cores(), machine_cores(),
                               session.ranks_on_node());
    });
    if (!choice.warning.empty() && world.rank() == 0 && !gpu) log::warn("{}", choice.warning);
    RunDevice device;
    device.context.threads = choice.threads;
    if (gpu) {
      device.context.device = gpu->device;
      device.context.stream = &gpu->stream;
      device.context.libraries = gpu->libraries.get();
      device.comms = gpu->comms;
    }
    Runtime runtime{.session = session,
                    .world = world,
                    .device = device,
                    .context = device.context,
                    .arguments = arguments,
                    .gpu = gpu.get()};
    const int code = program(runtime);
    if (gpu && world.rank() == 0) gpu->libraries->save();
    return code;
  });
}

}  // namespace ptrain
