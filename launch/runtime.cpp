#include "launch/runtime.h"

#include "kernels/base/log.h"
#include "launch/threads.h"

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

int run_on_ranks(const Arguments& arguments, Config::LogLevel level,
                 const std::function<int(Runtime&)>& program) {
  Session session(find_launcher([&](const char* name) { return arguments.variable(name); }));
  return session.run([&] {
    Communicator& world = session.world();
    log::configure(level_of(level), world.rank(), world.size());
    const ThreadChoice choice = threads_of_rank(arguments.variable("OMP_NUM_THREADS"), allowed_cores(),
                                                machine_cores(), session.ranks_on_node());
    if (!choice.warning.empty() && world.rank() == 0) log::warn("{}", choice.warning);
    Runtime runtime{
        .session = session, .world = world, .context = {.threads = choice.threads}, .arguments = arguments};
    return program(runtime);
  });
}

}  // namespace ptrain
